"""A model that a server offers, loaded or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kvorum.api import Engine


@dataclass(frozen=True, slots=True)
class ModelSource:
    """``name``: in requests. ``load`` is called on another thread than engines compute on. ``needs``: bytes of memory
    that it takes; 0: not known."""

    name: str
    load: Callable[[], Engine]
    needs: int = 0

    @classmethod
    def of(cls, engine: Engine) -> ModelSource:
        """One that is loaded already."""
        return cls(short_name(engine.name), lambda: engine)


def short_name(model: str) -> str:
    """What a model is called in requests: the last part of a path or hub id."""
    return model.rstrip("/").rpartition("/")[2]
