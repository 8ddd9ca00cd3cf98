"""Forms: a JSON schema as the leaves that can be filled at the same time, and what was written as values."""
