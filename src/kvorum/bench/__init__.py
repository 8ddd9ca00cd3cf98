"""`kvorum bench`: what a tick costs here, beside other engines on the same weights, in one run.

`engines` are those that are compared, each in a process of its own; `session` says what is asked of them, `compare`
times them in turns, `result` holds what was measured, `report` and `plot` show it beside its `bounds`.
"""
