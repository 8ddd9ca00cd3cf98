"""What a study file says: YAML, or Python whose ``STUDY`` is the same dictionary or a ``Study``.

A Python file is the user's own code and is run as such, with all rights of whoever gives the command. It is for grids
that are easier made than written down.
"""

from __future__ import annotations

import runpy
from pathlib import Path

from kvorum.errors import BadRequest
from kvorum.lab.extra import need


def read_value(path: str | Path) -> object:
    """The value that the file holds; nothing of it is checked yet.

    Raises:
        BadRequest: the file cannot be read, is not YAML, fails as Python, or has no STUDY.
    """
    path = Path(path)
    return _python(path) if path.suffix == ".py" else _yaml(path)


def _yaml(path: Path) -> object:
    yaml = need("yaml")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadRequest(f"The study {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise BadRequest(f"The study {path} is not UTF-8 text.") from error
    except yaml.YAMLError as error:
        raise BadRequest(f"The study {path} is not YAML: {' '.join(str(error).split())}.") from error


def _python(path: Path) -> object:
    if not path.is_file():
        raise BadRequest(f"The study {path} cannot be read: there is no such file.")
    try:
        names = runpy.run_path(str(path), run_name="kvorum_study")
    except (Exception, SystemExit) as error:  # whatever the user's code may raise
        raise BadRequest(f"The study {path} could not be run: {type(error).__name__}: {error}.") from error
    if "STUDY" not in names:
        raise BadRequest(f"The study {path} defines no STUDY; let it be a dictionary, or Study.of one.")
    return names["STUDY"]
