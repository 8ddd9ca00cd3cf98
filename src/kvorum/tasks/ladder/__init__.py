"""Generated problems whose answers need what stands outside of a model: what it was told before (memory), how something
is done (a skill), and in what form to answer (a protocol).
"""
