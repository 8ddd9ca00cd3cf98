"""Model runners: ways to run the layers of a model over a tick."""
