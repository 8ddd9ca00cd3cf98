"""A conversation whose memory and skills change: as blocks, and as text at the front of the prompt."""
