"""The program consensus."""
