"""The backend that runs the model in this process."""
