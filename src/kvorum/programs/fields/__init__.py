"""fields: the leaves of a JSON schema, filled at the same time from one text."""
