"""Sampling: from logits to tokens, as a function of logits, seed, stream and step."""
