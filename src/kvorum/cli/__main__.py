"""`python -m kvorum.cli`: the command without its installed script."""

import sys

from kvorum.cli import main

if __name__ == "__main__":  # not in the processes that a bench starts
    sys.exit(main())
