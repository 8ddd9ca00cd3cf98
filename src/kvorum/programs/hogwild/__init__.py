"""The program hogwild."""
