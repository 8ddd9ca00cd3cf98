"""Message passing on a graph: the program in ``network.py``, rounds and scripted players in ``message_rounds.py``."""
