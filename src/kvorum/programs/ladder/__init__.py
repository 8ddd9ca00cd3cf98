"""The ladder: one worker with memory, skills and a protocol, each of which can be taken away (``ladder.py``); what it
is given of them (``known.py``).
"""
