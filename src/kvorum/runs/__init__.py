"""Runs: a program with its workers, budget, trace and people, on one engine."""
