"""The engine: a tick, from rows to tokens, shared by all coroutines that are pending."""
