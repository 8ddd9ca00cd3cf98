"""What was learnt, kept as text: entries, their file, and how they go out and come in."""
