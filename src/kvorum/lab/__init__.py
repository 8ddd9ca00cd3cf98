"""The lab: studies of teams against controls, their statistics, and reports. Needs the packages of the extra ``lab``,
which are imported when they are first needed."""

from functools import partial
from pathlib import Path
from typing import Any

from kvorum import errors

need = partial(errors.need, who="`kvorum study`", extra="lab")
"""Imports a package of the extra."""


def read_yaml(beside: str, name: str) -> Any:
    """What the file ``name`` in the folder of the module ``beside`` (its ``__file__``) holds."""
    return need("yaml").safe_load(Path(beside).with_name(name).read_text(encoding="utf-8"))
