"""Everyday tasks: 28 kinds of small jobs that people give to a model on a laptop, made from seeds, with checkers.

``kind`` says what one is; ``reading``, ``rewriting``, ``judging`` and ``working`` have the kinds; ``family`` makes the
lab's items of them.
"""
