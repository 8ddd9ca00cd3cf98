"""Detectors of failures in the traces of teams."""
