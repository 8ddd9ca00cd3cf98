"""Measures of what workers take from each other."""
