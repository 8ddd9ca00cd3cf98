"""What computes a tick: the protocol, and its implementations."""
