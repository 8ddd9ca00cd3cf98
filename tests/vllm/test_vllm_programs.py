"""Views through vLLM's workers: random view programs against the local backend, every logit and hidden state.

One process, tensor parallel, pipeline parallel, and both; forks at any token, splices, gaps, hidden blocks, moves,
placed spans, patched blocks, latent rows (see ``view_programs``). A team's run gives the same tokens, greedy and drawn,
blocks move between degrees and to the local backend, from caches in int8 and float16 too, a tap says the same, and a
grammar's mask is kept. Float32, tiny models.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from spread_engines import MARKS, PROGRAMS, Spread, check_team, check_view_programs, spread, toy

from kvorum import Budget, Engine, Row, Sampling, View, programs
from kvorum.sampling.grammar import Grammar
from test_tap import Played as Tapped

pytestmark = MARKS

DEGREES = [(1, 1), (2, 1), (1, 2), (2, 2)]


@pytest.fixture(scope="module", params=DEGREES, ids=lambda degrees: "tp{}-pp{}".format(*degrees))
def both(request: pytest.FixtureRequest, spread: Spread, toy: Path) -> Iterator[tuple[Engine, Engine]]:
    """An engine on workers and one in this process, of the same model."""
    there = spread(toy, *request.param)
    yield there, Engine.load(toy, quantize=None, dtype="float32", kv_tokens=4096, attention="reference")
    there.backend.close()


def test_random_view_programs(both: tuple[Engine, Engine]) -> None:
    there, here = both
    free = there.pool.free
    check_view_programs(there, here, PROGRAMS)
    assert there.pool.free == free, "pages were lost"


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_team_writes_the_same_tokens(both: tuple[Engine, Engine], temperature: float) -> None:
    check_team(both, temperature)


def test_a_block_moves_between_degrees(both: tuple[Engine, Engine], tmp_path: Path, toy: Path) -> None:
    there, here = both
    assert there.backend.fingerprint == here.backend.fingerprint
    texts = {}
    for name, engine in (("there", there), ("here", here)):
        block = engine.block(name)
        engine.forward([Row(View(block), ids=[5, 6, 7, 8, 9])])
        engine.save(block.seal(), tmp_path / name)
        for kind in ("random", "zeroed"):
            engine.save(engine.imitate(block, kind, seed=4), tmp_path / f"{name}-{kind}")
        texts[name] = block
    for kind in ("", "-random", "-zeroed"):
        reads = []
        for name, engine in (("here", there), ("there", here)):  # each reads the other's
            block = engine.load_block(tmp_path / f"{name}{kind}")
            reads.append(engine.forward([Row(View(block, engine.block()), ids=[1, 2])]).logits)
        assert torch.allclose(reads[0], reads[1], atol=1e-4)


@pytest.mark.parametrize("kv_dtype", ["int8", "float16"])
def test_a_smaller_cache_holds_the_same(kv_dtype: str, spread: Spread, toy: Path, tmp_path: Path) -> None:
    """Two processes with halves of the heads beside the local backend, and blocks that one saved in the other."""
    there = spread(toy, 2, kv_dtype=kv_dtype)
    here = Engine.load(toy, dtype="float32", quantize=None, kv_dtype=kv_dtype, kv_tokens=4096)
    read = []
    for engine, name in ((there, "there"), (here, "here")):
        block, own = engine.block(), engine.block()
        first = engine.forward([Row(View(block), ids=list(range(20, 60)))]).logits
        second = engine.forward([Row(View(block, own), ids=[7])]).logits
        engine.save(block.seal(), tmp_path / name)
        read.append([first, second])
    for engine, name in ((there, "here"), (here, "there")):
        block = engine.load_block(tmp_path / name)
        read.append([engine.forward([Row(View(block, engine.block()), ids=[7])]).logits])
    assert all(torch.allclose(ours, theirs, atol=1e-4) for ours, theirs in zip(*read[:2], strict=True))
    assert all(torch.allclose(again, read[1][1], atol=1e-4) for (again,) in read[2:])


def test_a_tap_sees_the_same_shares(both: tuple[Engine, Engine]) -> None:
    there, here = (Tapped(engine, 5).shares for engine in both)
    assert len(there) == len(here) > 10
    assert all(torch.allclose(ours, theirs, atol=1e-5) for ours, theirs in zip(there, here, strict=True))
    assert all(float(share.sum()) > 0 for share in there)


def test_a_mask_is_kept_where_tokens_are_drawn(both: tuple[Engine, Engine]) -> None:
    told = []
    for engine in both:
        held = Sampling(0.7, seed=5, grammar=Grammar.choice(["the Tiber", "a bridge"]))
        result = engine.run(programs.find("plain"), "Which?", sampling=held, budget=Budget(ticks=24))
        told.append(result.workers[0].text)
    assert told[0] == told[1]
    assert told[0] in ("the Tiber", "a bridge")


def test_logits_stay_where_they_are_until_they_are_read(both: tuple[Engine, Engine]) -> None:
    there, here = both
    blocks = [engine.block() for engine in both]
    rows = [[Row(View(block), ids=[1, 2, 3])] for block in blocks]
    outputs = [engine.forward(each, every=True) for engine, each in zip(both, rows, strict=True)]
    for engine in both:  # ticks of others in between
        engine.forward([Row(View(engine.block()), ids=[9])])
    ours, theirs = (output.every for output in outputs)
    assert ours is not None
    assert theirs is not None
    assert torch.allclose(ours[0], theirs[0], atol=1e-4)
    assert there.shape.vocab == here.shape.vocab
