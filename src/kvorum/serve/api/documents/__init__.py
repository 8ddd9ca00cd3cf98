"""Documents: many questions of them, and forms filled from them (docs/serve-documents.md)."""
