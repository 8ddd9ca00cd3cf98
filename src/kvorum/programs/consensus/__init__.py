"""The valid-consensus game: the program in ``consensus.py``, what agents are told and how they are read in
``table.py``.
"""
