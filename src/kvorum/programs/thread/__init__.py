"""The program thread."""
