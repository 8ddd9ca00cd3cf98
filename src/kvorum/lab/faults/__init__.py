"""Known faults, put into runs so that detectors can be judged."""
