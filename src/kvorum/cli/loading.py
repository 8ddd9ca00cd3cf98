"""Loading a model for a command: what has to be fetched first is said, with bars."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvorum.api import Engine
    from kvorum.cli.arguments import LoadOptions
    from kvorum.cli.display.state import ShownRun


def is_ready(model: str) -> bool:
    """Whether the model can be loaded without fetching or converting it first."""
    from kvorum.models.cache_folder import entry_folder
    from kvorum.models.catalogue import CATALOGUE

    if model in CATALOGUE and not Path(model).exists():
        return entry_folder(CATALOGUE[model]).converted()
    return Path(model).is_dir()


def load(model: str, options: LoadOptions, state: ShownRun, check: Callable[[], None] = lambda: None) -> Engine:
    """The engine. Prints what has to be fetched first, with bars; says on the state what it is doing.

    ``check`` raises for what can be refused before the model is loaded.
    """
    from kvorum.models.progress import terminal_progress

    with _without_collecting():
        check()
        from kvorum.api import Engine

        state.status = f"loading {model}"
        if is_ready(model):
            return Engine.load(model, **options)
        _say_size(model)
        with terminal_progress(Path(model).name) as progress:
            return Engine.load(model, progress=progress, **options)


@contextmanager
def _without_collecting() -> Iterator[None]:
    """A start makes a million objects that all stay; collecting garbage among them takes a fifth of its time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _say_size(model: str) -> None:
    from kvorum.models.cache_folder import entry_folder
    from kvorum.models.catalogue import CATALOGUE
    from kvorum.wording import size

    entry = CATALOGUE.get(model)
    if entry is not None and not entry_folder(entry).gguf.is_file():
        smallest = min(CATALOGUE.values(), key=lambda other: other.size)
        quick = f"; --model {smallest.name} ({size(smallest.size)}) is the quick look" * (smallest is not entry)
        print(f"{model} is fetched first, once: {size(entry.size)}, {entry.licence}{quick}.", file=sys.stderr)
