"""What ships to try kvorum with: the text of the demo, its questions and its form."""
