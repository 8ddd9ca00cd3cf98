"""Role-play of a user and an assistant: the program in ``roleplay.py``, what the two say and hear in ``talk.py``."""
