"""Tools: whatever one does, its call ends in a typed outcome, in time and within its size; in a run too."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from typing import Any, Literal

import pytest

import toy_engine
from kvorum import Budget, Engine
from kvorum.errors import BadRequest
from kvorum.harness.tools.call import MAX_STUCK, _stuck, call
from kvorum.harness.tools.tool import tool
from kvorum.programs.thread.thread import thread
from thread_documents import notes, uses


@pytest.fixture
def engine() -> Engine:
    return toy_engine.fake(kv_tokens=4096)


def add(a: int, b: int = 1) -> int:
    """add two numbers"""
    return a + b


def fail(why: str) -> str:
    """always fails"""
    raise RuntimeError(why)


def leave(why: str) -> str:
    """tries to end the process"""
    raise SystemExit(why)


def hang(seconds: float) -> str:
    """takes its time"""
    time.sleep(seconds)
    return "late"


def flood(size: int) -> str:
    """says too much"""
    return "x" * size


async def later(word: str) -> dict[str, str]:
    """an asynchronous one"""
    return {"said": word}


async def block(seconds: float) -> str:
    """an asynchronous one that blocks its event loop"""
    time.sleep(seconds)
    return "late"


async def stay(seconds: float) -> str:
    """an asynchronous one that will not be cancelled"""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.01)
    return "late"


class Slow:
    """what cannot even be shown in time"""

    def __repr__(self) -> str:
        time.sleep(1)
        return "late"


def slow() -> Any:
    """returns what takes long to show"""
    return Slow()


CALLS = [
    ("add", '{"a":2,"b":3}', "ok", "5"),
    ("add", '{"a":2}', "ok", "3"),
    ("later", '{"word":"é"}', "ok", '{"said": "é"}'),
    ("fail", '{"why":"no"}', "error", "error: RuntimeError: no"),
    ("leave", '{"why":"no"}', "error", "error: SystemExit: no"),
    ("hang", '{"seconds":1}', "timeout", "error: no result within 0.05 seconds"),
    ("block", '{"seconds":1}', "timeout", "error: no result within 0.05 seconds"),
    ("stay", '{"seconds":1}', "timeout", "error: no result within 0.05 seconds"),
    ("slow", "{}", "timeout", "error: no result within 0.05 seconds"),
    ("flood", '{"size":1000000}', "cut", "x" * 50 + "… (999950 more characters)"),
    ("nobody", "{}", "error", None),
    ("add", "[1]", "error", "error: the parameters are not an object"),
    ("add", '{"c":1}', "error", None),
    ("add", "{", "error", None),
]

TOOLS: list[Callable[..., Any]] = [add, fail, leave, hang, flood, later, block, stay, slow]


@pytest.mark.parametrize(("name", "parameters", "status", "text"), CALLS)
def test_a_call_ends_in_a_typed_outcome(name: str, parameters: str, status: str, text: str | None) -> None:
    outcome = asyncio.run(call([tool(f) for f in TOOLS], name, parameters, seconds=0.05, chars=50))
    assert outcome.status == status
    assert text is None or outcome.text == text


def test_calls_that_never_return_are_few() -> None:
    bench = [tool(hang)]

    async def many() -> list[str]:
        given = '{"seconds":0.6}'
        return [(await call(bench, "hang", given, seconds=0.01, chars=50)).status for _ in range(MAX_STUCK + 1)]

    assert asyncio.run(many())[-1] == "refused"
    for thread_ in list(_stuck):
        thread_.join()
    assert asyncio.run(call(bench, "hang", '{"seconds":0}', seconds=5, chars=50)).status == "ok"


def test_tools_are_typed() -> None:
    def fine(a: str, b: Literal["x", "y"] = "x", c: list[int] | None = None) -> str:
        return a

    def wrong(a) -> str:  # type: ignore[no-untyped-def]
        return str(a)

    with pytest.raises(BadRequest, match=r"fine\(c\)"):
        tool(fine)
    with pytest.raises(BadRequest, match=r"wrong\(a\)"):
        tool(wrong)
    assert tool(add).parameters["required"] == ["a"]


@pytest.mark.parametrize(
    ("name", "parameters", "status"),
    [
        ("add", '{"a":2,"b":3}', "ok"),
        ("fail", '{"why":"\\"["}', "error"),
        ("hang", '{"seconds":1.0}', "timeout"),
        ("flood", '{"size":1000000}', "cut"),
        ("later", '{"word":"<end>"}', "ok"),
    ],
)
def test_a_tool_in_a_run(engine: Engine, name: str, parameters: str, status: str) -> None:
    options: dict[str, Any] = {"tools": TOOLS, "tool_seconds": 0.05, "tool_chars": 60}
    script = {"": uses(name, parameters)}
    result = engine.run(thread, "p", budget=Budget(ticks=999), script=script, **options)
    assert result.answer == "7"
    assert [note["status"] for note in notes(result, "tool")] == [status]
    used = json.loads(notes(result, "thread")[0]["document"])["reasoning"][0]["tooluse"]
    assert used["tool_name"] == name
    assert len(used["tool_result"]) < 100
    assert result.ledger.prefill > len(used["tool_result"]) // 2  # results enter as prefill
