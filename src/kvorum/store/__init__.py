"""What is kept on disk, its versions and its readers."""
