"""Anthropic's Messages, as a translation of a chat (docs/serve-messages.md)."""
