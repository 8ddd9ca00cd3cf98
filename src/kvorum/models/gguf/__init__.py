"""GGUF files: read, accounted for, and written down as models of transformers."""
