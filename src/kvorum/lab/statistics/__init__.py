"""Intervals, paired tests and the decomposition of variance of a table of runs."""
