"""Tasks: problems, what counts as a solution, and scripted players that mark what can be reached."""
