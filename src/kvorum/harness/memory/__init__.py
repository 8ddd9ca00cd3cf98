"""Memory as a harness has it: who may write, what a model sees of it, and the tools by which it writes itself."""
