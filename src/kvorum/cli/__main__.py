"""`python -m kvorum.cli`: the command without its installed script."""

import sys

from kvorum.cli import main

sys.exit(main())
