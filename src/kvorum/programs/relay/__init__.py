"""The program relay."""
