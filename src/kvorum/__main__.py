"""``python -m kvorum``: the command, where its script is not on the path."""

from kvorum.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
