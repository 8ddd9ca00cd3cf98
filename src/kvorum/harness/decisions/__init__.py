"""Typed questions about a state, answered by probabilities: what `decide` is made of, for any program to use."""
