"""The options of each command, a file each; ``groups`` has those that several share."""
