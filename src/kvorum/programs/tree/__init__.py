"""Rollouts that share prefixes: the program in ``tree.py``, schemes of branching in ``methods.py``, the branches and
their tokens in ``grow.py`` and ``branch.py``, the finished tree in ``nodes.py``, its scores in ``advantages.py``, and
what a trainer is given in ``export.py``.
"""
