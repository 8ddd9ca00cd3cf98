"""API keys: who a request is from, what that one may ask for, and whose is what it makes (docs/serve-keys.md)."""
