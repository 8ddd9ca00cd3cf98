"""Packages of the extra ``lab``, imported when they are first needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from kvorum.errors import MissingExtra


def need(module: str) -> Any:
    """The module. Raises MissingExtra."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"`kvorum study` needs {module.partition('.')[0]}; install it with: pip install 'kvorum[lab]'."
        ) from error
