"""Reports of studies: comparisons, intervals, figures, pages."""
