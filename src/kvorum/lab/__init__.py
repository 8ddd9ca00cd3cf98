"""The lab: studies of teams against controls, their statistics, and reports. Needs the extra ``lab``."""
