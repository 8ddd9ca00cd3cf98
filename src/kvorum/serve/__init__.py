"""`kvorum serve`: an OpenAI-compatible server, runs of programs with their events, blocks as shared memory, a page."""
