"""What runs on the engine's own thread: admission, plain decoding, runs of programs, blocks that clients hold."""
