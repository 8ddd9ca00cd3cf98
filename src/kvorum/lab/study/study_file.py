"""What stands in a study's file, which is YAML or Python whose ``STUDY`` is it, and whether its settings may be so."""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvorum.errors import BadRequest
from kvorum.jsontypes import Json, JsonObject
from kvorum.lab import need
from kvorum.runs.parameters import Parameter


def contents(path: Path) -> object:
    """The value of a study's file; a file in Python is run. Raises BadRequest: it cannot be read, or fails."""
    if path.suffix != ".py":
        return _yaml(path)
    if not path.is_file():
        raise BadRequest(f"The study {path} cannot be read: there is no such file.")
    try:
        names = runpy.run_path(str(path), run_name="kvorum_study")
    except (Exception, SystemExit) as error:  # whatever the user's code may raise
        raise BadRequest(f"The study {path} could not be run: {type(error).__name__}: {error}.") from error
    if "STUDY" not in names:
        raise BadRequest(f"The study {path} defines no STUDY; let it be a dictionary, or Study.of one.")
    return names["STUDY"]


def checked(settings: Sequence[Parameter], asked: JsonObject) -> dict[str, Any]:
    """What is asked for each setting, or its default. Raises BadRequest, UnknownName: it may not be that."""
    values = {setting.name: asked.get(setting.name, setting.default) for setting in settings}
    for setting in settings:
        setting.check(values[setting.name])
    return values


def _yaml(path: Path) -> Json:
    yaml = need("yaml")
    try:
        value: Json = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadRequest(f"The study {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise BadRequest(f"The study {path} is not UTF-8 text.") from error
    except yaml.YAMLError as error:
        raise BadRequest(f"The study {path} is not YAML: {' '.join(str(error).split())}.") from error
    return value
