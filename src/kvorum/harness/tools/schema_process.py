"""The process in which values are checked against schemas that somebody else wrote; ``schema_check`` starts it.

A JSON object a line comes in, with ``schema``, ``value`` and ``seconds``, and one goes out, with ``wrong``. A pattern
that goes back and forth for ever holds Python's lock, and references that double cost more at each level, so that only
the end of a process ends them: this one sets itself an alarm. Nothing that a schema refers to is opened or fetched.
Nothing of kvorum is imported where it runs, so that it is there soon.
"""

from __future__ import annotations

import json
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvorum.jsontypes import Json

MEMORY = 2_000_000_000
"""Bytes of address space that the process may take."""
MOST_WORDS = 4000
"""Characters of what is said to be wrong."""


def wrong_with(schema: Json, value: Json) -> str:
    """Why ``value`` does not fit ``schema``, or why that cannot be said; "" where it fits. Takes its time."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError, best_match
    from jsonschema.validators import validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    try:
        dialect = validator_for(schema, default=Draft202012Validator)
        dialect.check_schema(schema)
        found = best_match(dialect(schema, registry=Registry()).iter_errors(value))
        said = "" if found is None else str(found.message)
    except SchemaError as error:
        said = f"the tool's schema is none: {error.message}"
    except Unresolvable as error:
        said = f"the tool's schema refers to {error.ref!r}, which is not in it; nothing is fetched"
    except RecursionError:
        said = "the tool's schema, or what was given, nests too deep or refers to itself"
    except MemoryError:
        said = "checking it takes more memory than it may"
    except Exception as error:  # whatever a schema does to the library: a pattern that is none, a number as a name
        said = f"the tool's schema cannot be used: {type(error).__name__}: {error}"
    return said if len(said) <= MOST_WORDS else f"{said[:MOST_WORDS]}…"


def main() -> None:
    """Answer line after line until there is none."""
    if sys.platform != "win32":
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = MEMORY if most == resource.RLIM_INFINITY else min(MEMORY, most)
        with suppress(ValueError, OSError):  # a system that has more taken already, as macOS, keeps its own limit
            resource.setrlimit(resource.RLIMIT_AS, (limit, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started it, whose end closes the input
    wrong_with({}, {})  # which imports what it takes
    _answer({})
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        _alarm(asked["seconds"])
        said = wrong_with(asked["schema"], asked["value"])
        _alarm(0.0)
        _answer({"wrong": said})


def _alarm(seconds: float) -> None:
    """Have the system end this process then; 0: never. Windows has none, and whoever waits ends it."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _answer(told: dict[str, str]) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
