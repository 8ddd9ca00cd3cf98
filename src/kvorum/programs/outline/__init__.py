"""Skeleton-of-Thought: an outline first, then its sections side by side."""
