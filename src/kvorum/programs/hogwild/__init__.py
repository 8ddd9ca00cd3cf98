"""Hogwild! Inference: the program in ``hogwild.py``, its team of workers in ``team.py``, the same without a shared
cache, as controls of a study, in ``controls.py``, and the words that workers are given in ``text.py``.
"""
