"""Coroutine functions of an engine as methods for callers that are no coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from kvorum.engine.engine import EngineCore
from kvorum.errors import BadRequest

P = ParamSpec("P")
T = TypeVar("T")


def to_its_end(
    function: Callable[Concatenate[EngineCore, P], Coroutine[None, None, T]],
) -> Callable[Concatenate[EngineCore, P], T]:
    """``function`` for callers that are no coroutines, with the same arguments, on an event loop of its own."""

    @wraps(function)
    def run(engine: EngineCore, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with suppress(RuntimeError):  # none is running, as it should be
            asyncio.get_running_loop()
            raise BadRequest(f"An event loop is running here: use `await kvorum.{function.__name__}(engine, ...)`.")
        return asyncio.run(function(engine, *args, **kwargs))

    return run
