"""Speculation: tokens that are supposed to come are computed with those that have, and cost nothing if they do."""
