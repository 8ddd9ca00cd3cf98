"""Protocols: what workers may say to each other, whose turn it is, how votes are counted and when it ends."""
