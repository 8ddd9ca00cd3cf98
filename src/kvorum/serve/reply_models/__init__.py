"""Replies and their schemas: the OpenAI objects, and those of runs, blocks and models."""
