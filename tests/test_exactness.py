"""Exact mode on the real model, and what must not change a worker's result.

Covers: one worker's greedy tokens against transformers' own ``generate``; four workers for 50 ticks (two and four for
200 in the slow lane), finished steps moved to a shared history, against the dense oracle on the real weights; on tiny
models, in float64, page size, order of rows, other teams in the tick, and a long prefill beside a stream. Not covered:
quantised weights.
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from families import VOCAB, build, random_ids
from kvorum import Block, Engine, Row, View
from kvorum.engine.text import chat, encode
from oracle import Oracle, widen
from view_programs import Maker, Played, play

# -- real models -------------------------------------------------------------------------------------------------

REAL = ["smollm2-135m", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gemma3-270m", "qwen2.5-coder-0.5b"))]


@pytest.fixture
def real(request: pytest.FixtureRequest) -> Engine:
    """A model of the catalogue in exact mode: windows and two rotations, biases and an untied output are among them."""
    if request.param == "smollm2-135m":
        engine: Engine = request.getfixturevalue("smollm2")
        return engine
    return Engine.load(request.param, quantize=None, dtype="float32", kv_tokens=4096, accept_licence=True)


def prompt_ids(engine: Engine, text: str) -> list[int]:
    """As a conversation, or as it is where the model has no template."""
    if engine.tokenizer.chat_template is None:
        return encode(engine.tokenizer, text, special=True)
    return chat(engine.tokenizer, [{"role": "user", "content": text}])


@pytest.mark.parametrize("real", REAL, indirect=True)
@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        ("What is the capital of France, and which river flows through it?", 40),
        pytest.param("Write a Python function that returns the n-th Fibonacci number.", 96, marks=pytest.mark.slow),
        pytest.param(
            "A farmer has 17 sheep and buys 5 more. Then 3 run away. How many are left?", 40, marks=pytest.mark.slow
        ),
    ],
)
def test_one_worker_is_generate(real: Engine, prompt: str, tokens: int) -> None:
    ids = prompt_ids(real, prompt)
    given_ids = torch.tensor([ids])
    model: Any = real.model
    theirs = model.generate(
        given_ids,
        attention_mask=torch.ones_like(given_ids),
        max_new_tokens=tokens,
        do_sample=False,
        pad_token_id=real.tokenizer.eos_token_id,
    )[0, len(ids) :].tolist()

    async def decode() -> list[int]:
        view = View(real.block())
        return [int(token) async for token in real.decode(view, ids=ids, max_tokens=tokens)]

    ours = asyncio.run(decode())
    assert ours == theirs
    assert len(ours) > 8


@pytest.mark.parametrize("real", REAL, indirect=True)
@pytest.mark.parametrize(
    ("workers", "ticks"), [(4, 26), *(pytest.param(n, 200, marks=pytest.mark.slow) for n in (2, 4))]
)
def test_workers_are_the_oracle(real: Engine, workers: int, ticks: int) -> None:
    """Each worker sees the history, the others' unfinished steps and its own; steps move to the history in turns."""
    history = real.block("history")
    steps = [real.block(f"{worker}.0") for worker in range(workers)]
    prompt = prompt_ids(real, "Work together: list facts about the number 12.")
    oracle = Oracle(real.model)
    real.forward([Row(View(history), ids=prompt)])
    oracle.tick([([("history", 0, None)], prompt)])
    pending = [encode(real.tokenizer, f"**Worker {worker + 1}:** Let me") for worker in range(workers)]
    seen: list[tuple[list[list[int]], torch.Tensor]] = []

    def items(worker: int) -> list[Block]:
        return [history, *(step for other, step in enumerate(steps) if other != worker), steps[worker]]

    views = [View(*items(worker)) for worker in range(workers)]
    for tick in range(ticks):
        rows = [Row(view, ids=ids) for view, ids in zip(views, pending, strict=True)]
        told = [([(block.name, 0, None) for block in items(worker)], pending[worker]) for worker in range(workers)]
        logits = real.forward(rows).logits
        seen.append((oracle.tick(told), logits))
        pending = [[int(token)] for token in logits.argmax(-1)]
        if tick % 12 == 11:  # one of them has finished a step
            worker = tick // 12 % workers
            real.compact([steps[worker]], into=history)
            oracle.move([(steps[worker].name, 0, None)], "history")
            steps[worker] = real.block(f"{worker}.{tick}")
            views = [View(*items(worker)) for worker in range(workers)]
    solved = oracle.solve().logits
    close_calls = 0
    for tick, (numbers, ours) in enumerate(seen):
        theirs = solved[[new[-1] for new in numbers]]
        worst = float((ours - theirs).abs().max())
        assert worst < 1e-3, f"tick {tick}: logits differ by {worst:.1e}"
        best = theirs.topk(2).values
        clear = best[:, 0] - best[:, 1] > 2e-3
        close_calls += int((~clear).sum())
        assert torch.equal(ours.argmax(-1)[clear], theirs.argmax(-1)[clear]), f"tick {tick}: another greedy token"
    assert close_calls <= 2, "so near that rounding decides: choose another prompt"
    assert len(history) > len(prompt) + 3 * ticks // 4
    window = getattr(real.model.config, "sliding_window", None)
    assert ticks < 200 or workers == 2 or window is None or len(views[0]) > window, "no view has left the window"


# -- what must not matter ----------------------------------------------------------------------------------------


@cache
def engine(page_size: int = 16) -> Engine:
    return Engine(widen(build("mistral", torch.float64)), kv_tokens=2048, page_size=page_size)


def same(left: Played, right: Played) -> None:
    for ours, theirs in zip(left.logits, right.logits, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert float((a - b).abs().max()) < 1e-10


@settings(max_examples=30)
@given(data=st.data(), page_size=st.sampled_from((1, 3, 64)))
def test_page_size_row_order_and_other_teams_change_nothing(data: st.DataObject, page_size: int) -> None:
    maker = Maker(data.draw, engine(), vocab=VOCAB, width=48)
    maker.make(data.draw(st.integers(1, 8)))
    same(maker.played, play(engine(page_size), maker.script))
    same(maker.played, play(engine(), maker.script, order=lambda rows: list(reversed(range(rows)))))
    made, seed = engine(), data.draw(st.integers(0, 99))
    shared = made.block()
    made.forward([Row(View(shared), ids=random_ids(20, seed).tolist())])
    team = [View(shared, made.block()) for _ in range(2)]

    def others() -> list[Row]:
        return [Row(view, ids=random_ids(at + 1, seed).tolist()) for at, view in enumerate(team)]

    same(maker.played, play(made, maker.script, others=others))


def test_a_long_prefill_beside_a_stream() -> None:
    """A long prefill beside decoding rows: both are as if alone."""
    made = engine()
    tokens = random_ids(60, 3).tolist()

    def decode(beside: bool) -> tuple[list[Any], list[Any]]:
        a, long = View(made.block()), View(made.block())
        made.forward([Row(a, ids=tokens[:9])])
        out, prefill = [], []
        for at in range(4):
            rows = [Row(a, ids=[tokens[at]])]
            if beside:
                rows.insert(0, Row(long, ids=tokens[15 * at : 15 * at + 15]))
            result = made.forward(rows, every=True)
            assert result.every is not None
            out.append(result.every[-1])
            prefill += [result.every[0]] if beside else []
        return out, prefill

    alone, _ = decode(False)
    together, prefill = decode(True)
    for a, b in zip(alone, together, strict=True):
        assert float((a - b).abs().max()) < 1e-10
    whole = made.forward([Row(View(made.block()), ids=tokens)], every=True)
    assert whole.every is not None
    assert float((torch.cat(prefill) - whole.every[0]).abs().max()) < 1e-10
