"""`kvorum bench`: what a tick costs here, beside other engines on the same weights, in one run.

`sides` are the engines that are compared, `measure` times them in turns, `machine` says on what, `report` shows it.
"""
