"""Every registered program on vLLM's workers: the tokens of the local backend, tick by tick, on one process and two.

Twenty ticks each of a tiny random model, sampled; then one team under a grammar. What needs a model's own weights is
refused, in one sentence. The workers of a degree are started once. Not covered: what the programs make of a real
model's tokens, which their own tests hold; other degrees, which ``test_vllm_programs`` has.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from spread_engines import MARKS, Spread, spread, toy

import cli_calls
from kvorum import Budget, Engine, Grammar, Result, Sampling
from kvorum.errors import UnsupportedModel
from kvorum.programs import REGISTRY
from test_budgets import NEEDED

pytestmark = MARKS
TICKS, KV_TOKENS = 20, 32768
MORE = {"fields": 60}
"""Ticks of a program that would have none left behind what it keeps for its end."""
NEEDS_WEIGHTS = ("relay",)
"""Programs whose own way takes the weights of embeddings; refused where these are in other processes."""
IN_WORDS: dict[str, dict[str, Any]] = {"relay": {"think": "text", "handover": "both"}}
"""How such a program goes without."""
RUN = {**NEEDED, **IN_WORDS}


@pytest.fixture(scope="module", params=[(1, 1), (1, 2)], ids=lambda degrees: "tp{}-pp{}".format(*degrees))
def both(request: pytest.FixtureRequest, spread: Spread, toy: Path) -> Iterator[tuple[Engine, Engine]]:
    """An engine on workers and one in this process, of the same model."""
    there = spread(toy, *request.param, kv_tokens=KV_TOKENS)
    yield there, Engine.load(toy, quantize=None, dtype="float32", kv_tokens=KV_TOKENS, attention="reference")
    there.backend.close()


def run(engine: Engine, name: str, trace: Path, **options: Any) -> Result:
    found = REGISTRY[name]
    return engine.run(
        found,
        "What is 2 + 3?",
        workers=min(2, found.most_workers or 2) if name != "team_ladder" else 4,
        budget=Budget(ticks=MORE.get(name, TICKS)),
        trace=trace,
        **{"sampling": Sampling(0.8, seed=3), **options},
    )


def compare(both: tuple[Engine, Engine], name: str, folder: Path, **options: Any) -> list[list[tuple[str, int]]]:
    """Run a program on both engines; what they wrote, who and which token, the same tick by tick."""
    told, results = [], []
    for at, engine in enumerate(both):
        trace = folder / f"{at}.jsonl"
        free = engine.pool.free
        results.append(run(engine, name, trace, **options))
        told.append([[(row["worker"], row["token"]) for row in rows] for rows in cli_calls.ticks(trace)])
        results[-1].workers.clear()  # they hold their blocks
        gc.collect()  # what a program leaves in cycles, as a tree and its branches, holds pages, too
        assert engine.pool.free == free, "pages were lost"
    there, here = results
    assert told[0] == told[1]
    assert there.ledger.ticks == here.ledger.ticks
    assert (there.ledger.prefill, there.ledger.decoded) == (here.ledger.prefill, here.ledger.decoded)
    assert there.outcome == here.outcome
    answers = [re.split(r"(\d+\.\d+)", result.answer or "") for result in results]  # probabilities may round otherwise
    assert answers[0][::2] == answers[1][::2]
    assert [float(one) for one in answers[0][1::2]] == pytest.approx([float(one) for one in answers[1][1::2]], abs=1e-3)
    return told[0]


@pytest.mark.parametrize("name", REGISTRY)
def test_a_program_writes_the_same_tokens(both: tuple[Engine, Engine], name: str, tmp_path: Path) -> None:
    ticks = compare(both, name, tmp_path, **RUN.get(name, {}))
    assert ticks or name == "decide"  # which writes nothing: its probabilities are compared


@pytest.mark.parametrize("name", NEEDS_WEIGHTS)
def test_what_needs_the_weights_is_refused(both: tuple[Engine, Engine], name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="vLLM's workers and cannot be read here; take backend='local'"):
        run(both[0], name, tmp_path / "trace.jsonl", **NEEDED.get(name, {}))


def test_a_team_under_a_grammar(both: tuple[Engine, Engine], tmp_path: Path) -> None:
    """Each of its workers keeps to it, by masks that are made here and kept where tokens are drawn."""
    held = Sampling(0.8, seed=5, grammar=Grammar.choice(["the Tiber", "a bridge", "two rivers"]))
    ticks = compare(both, "hogwild", tmp_path, sampling=held)
    assert max(len(rows) for rows in ticks) == 2
    texts: dict[str, list[int]] = {}
    for who, token in (row for rows in ticks for row in rows):
        texts.setdefault(who, []).append(token)
    for ids in texts.values():
        wrote = both[1].tokenizer.decode(ids, skip_special_tokens=True)
        assert re.fullmatch("(the Tiber|a bridge|two rivers)+", wrote), wrote
