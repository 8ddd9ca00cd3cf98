"""The HTTP routes, on the main thread's event loop: models of requests and replies, streams, what may be asked for."""
