"""The agent: one worker in a loop of think, call, observe (``agent.py``), over a text of which old results leave the
cache (``context.py``).
"""
