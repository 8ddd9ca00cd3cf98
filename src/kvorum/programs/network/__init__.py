"""The program network."""
