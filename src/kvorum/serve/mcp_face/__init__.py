"""MCP: the server's blocks as resources, and tools to run programs and to ask of blocks (docs/serve-mcp.md)."""
