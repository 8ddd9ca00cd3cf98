"""Whole jobs of one shared text beside other engines: many questions, a form, decisions.

``jobs`` says what is asked, ``peer`` what every engine does, ``session`` measures; an engine has a file of its own.
"""
