"""The program roleplay."""
