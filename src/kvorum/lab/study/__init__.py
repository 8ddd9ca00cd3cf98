"""Studies: cells of arms and problems, run and recorded."""
