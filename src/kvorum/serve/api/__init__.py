"""The HTTP routes, on the main thread's event loop: what may be asked for, streams, and replies."""
