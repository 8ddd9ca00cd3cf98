"""TIM: the program in ``thread.py``, whose worker writes a document of tasks (``writer.py``) under a schema
(``grammar.py``); it is read as it grows (``parse.py``), and finished parts leave the cache (``harness.live_text``).
"""
