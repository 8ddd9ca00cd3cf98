"""Crew files: what a YAML file says of a crew (``reading.py``), with the line of every part of it (``lines.py``)."""
