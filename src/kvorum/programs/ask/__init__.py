"""Many questions of one text: the program in ``ask.py``, the words that the model is told in ``text.py``."""
