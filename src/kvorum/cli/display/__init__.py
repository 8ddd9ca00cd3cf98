"""How a run is shown: its state gathered from events, and panes, lines of text or a summary made of that."""
