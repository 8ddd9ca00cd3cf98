"""LatentMAS: the program in ``relay.py``, latent steps in ``alignment.py``, the words that workers are given in
``text.py``.
"""
