"""The lab: studies of teams against controls, their statistics, and reports. Needs the packages of the extra ``lab``,
which are imported when they are first needed."""

from importlib import import_module
from types import ModuleType

from kvorum.errors import MissingExtra


def need(module: str) -> ModuleType:
    """Import a package of the extra. Raises MissingExtra where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"`kvorum study` needs {module.partition('.')[0]}; install it with: pip install 'kvorum[lab]'."
        ) from error
