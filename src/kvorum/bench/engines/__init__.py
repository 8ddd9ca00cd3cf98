"""The engines that a bench compares, each behind `side.Side` and in a process of its own.

`registry` says which can run here and makes one; `process` starts its process, in which `server` does what is asked.
"""
