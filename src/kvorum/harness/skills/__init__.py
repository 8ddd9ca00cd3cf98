"""Skills: procedures that are written down once, in folders as the Agent Skills specification has them."""
