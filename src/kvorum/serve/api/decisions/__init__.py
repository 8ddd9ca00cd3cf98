"""Decisions: typed questions about a state, in the two forms that services speak (docs/decisions.md)."""
