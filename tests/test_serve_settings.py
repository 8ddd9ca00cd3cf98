"""What a server changes for the whole process and in its engine is as it was when it has stopped, also by an error."""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path

import pytest
import torch

import toy_engine
from kvorum import Engine
from kvorum.serve.engine_thread.thread import CHUNK, SWITCH, serving, serving_process
from kvorum.serve.model_source import ModelSource
from kvorum.serve.server import Server
from kvorum.serve.settings import ServerSettings
from serving import served


def settings_of(engine: Engine) -> list[object]:
    threads = [torch.get_num_threads(), torch.get_num_interop_threads()]
    return [
        sys.getswitchinterval(),
        gc.get_freeze_count() > 0,
        engine.prefill_chunk,
        engine.scheduler.listener,
        engine.scheduler.between,
        *threads,
    ]


def test_all_is_put_back_when_a_server_stops(tmp_path: Path) -> None:
    engine = toy_engine.fake(name="toy")
    before = settings_of(engine)
    with served(engine, tmp_path) as up:
        assert up.post("/v1/completions", {"model": "toy", "prompt": "a", "max_tokens": 2}).status_code == 200
        assert sys.getswitchinterval() == pytest.approx(SWITCH)
        assert engine.prefill_chunk <= CHUNK
        assert engine.scheduler.listener is not None
    assert settings_of(engine) == before


@pytest.mark.parametrize("frozen", [False, True])  # the last one leaves it as the other tests have it
def test_all_is_put_back_after_an_error(frozen: bool) -> None:
    engine = toy_engine.fake(name="toy")
    (gc.freeze if frozen else gc.unfreeze)()
    before = settings_of(engine)
    with pytest.raises(OSError, match="broken"), serving_process(), serving(engine, print, bool):
        raise OSError("broken")
    assert settings_of(engine) == before


def test_all_is_put_back_where_a_server_cannot_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = toy_engine.fake(name="toy")
    before = settings_of(engine)
    server = Server([ModelSource.of(engine)], ServerSettings(store=tmp_path))

    def broken(model: str | None) -> None:
        raise OSError("broken")

    async def begin() -> None:
        async with server.running():
            pass

    monkeypatch.setattr(server.shared.store.claims, "take", broken)
    with pytest.raises(OSError, match="broken"):
        asyncio.run(begin())
    assert settings_of(engine) == before
    assert not server.shared.thread.alive
