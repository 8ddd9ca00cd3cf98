"""From views to attention: the plan of a tick, its reference path and the fast ones."""
