"""Behind the seam: the local backend of an engine, for tests that look at what is stored or how it is computed."""

from __future__ import annotations

from kvorum.backends.local.backend import LocalBackend
from kvorum.engine.engine import EngineCore
from kvorum.kv import KVCache


def backend(engine: EngineCore) -> LocalBackend:
    """The engine's backend, which runs in this process."""
    assert isinstance(engine.backend, LocalBackend)
    return engine.backend


def cache(engine: EngineCore) -> KVCache:
    """Every stored key and value."""
    return backend(engine).kv
