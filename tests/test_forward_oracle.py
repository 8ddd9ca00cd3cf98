"""``forward`` against the dense oracle, in float64 on tiny random models.

Covers random view programs (see ``view_programs``) on plain and biased models, and on those with windows and rotations
that differ by layer; page sizes 1 to 16, scattered pages, joined and unjoined spans, and attention in parts; and, step
by step, the sentences of the design that a reader would check first. Not covered: real weights
(``test_exactness.py``) and other families (``test_families.py``).
"""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from torch import Tensor

from families import VOCAB, build, random_ids
from kvorum import Engine, Gap, Row, Span, View
from kvorum.attention import reference, view_structure
from kvorum.attention.plan import Planner
from oracle import Oracle, widen
from view_programs import Maker, Played, Script, play, solve

WIDTH = 48
MODELS = ("llama", "llama-mha-bias", "mistral", "qwen2-sliding", "gemma3")


@cache
def model(name: str) -> Any:
    return widen(build(name, torch.float64))


@cache
def engine(name: str, page_size: int = 16, scattered: bool = False) -> Engine:
    """Scattered: no two free pages are adjacent."""
    made = Engine(model(name), kv_tokens=4096, page_size=page_size, prefill_chunk=7)
    if scattered:
        made.pool.give(made.pool.take(made.pool.pages)[::2])
    return made


def close(left: Played, right: Played, tolerance: float = 1e-9) -> None:
    """Every logit of every token and every hidden state."""
    for kind in ("logits", "hidden"):
        ticks = list(zip(getattr(left, kind), getattr(right, kind), strict=True))
        assert ticks
        for number, (ours, theirs) in enumerate(ticks):
            for row, (a, b) in enumerate(zip(ours, theirs, strict=True)):
                worst = float((a - b).abs().max())
                assert worst < tolerance, f"tick {number}, row {row}: {kind} differ by {worst:.1e}"


@settings(max_examples=80)
@given(
    data=st.data(),
    name=st.sampled_from(MODELS),
    page_size=st.sampled_from((1, 2, 3, 16)),
    scattered=st.booleans(),
    join_below=st.sampled_from((0, 3, 64)),
    scores=st.sampled_from((1, 100, 1 << 22)),
)
def test_random_view_programs(
    data: st.DataObject, name: str, page_size: int, scattered: bool, join_below: int, scores: int
) -> None:
    made = engine(name, page_size, scattered)
    free = made.pool.free
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(view_structure, "JOIN_BELOW", join_below)
        patch.setattr(reference, "SCORES", scores)
        maker = Maker(data.draw, made, vocab=VOCAB, width=WIDTH)
        maker.make(data.draw(st.integers(2, 14)))
    for step in maker.script.steps:
        event(step[0])
    close(maker.played, solve(maker.script, model(name)))
    del maker, step
    assert made.pool.free == free, "pages were lost"


def test_the_oracle_is_the_model() -> None:
    """The judge itself: one block is a plain sequence, which transformers can judge (its angles are float32)."""
    for name in MODELS:
        ids = random_ids(23)
        oracle = Oracle(model(name))
        oracle.tick([([("a", 0, None)], ids[:9].tolist())])
        oracle.tick([([("a", 0, None)], ids[9:].tolist())])
        with torch.no_grad():
            plain = model(name)(input_ids=ids[None]).logits[0]
        assert float((oracle.solve().logits - plain).abs().max()) < 2e-5


# -- sentence by sentence ----------------------------------------------------------------------------------------


def ids(count: int, seed: int) -> list[int]:
    return random_ids(count, seed).tolist()


def last(script: Script, name: str = "llama") -> list[Tensor]:
    """Played and solved; returns the logits of the last tick."""
    ours = play(engine(name), script)
    close(ours, solve(script, model(name)))
    return ours.logits[-1]


def test_workers_see_each_others_token_of_the_same_tick() -> None:
    start: tuple[Any, ...] = ("tick", [([("a", 0, None)], ids(4, 1)), ([("b", 0, None)], ids(3, 2))])
    both = [("b", 0, None), ("a", 0, None)], [("a", 0, None), ("b", 0, None)]

    def then(token: int) -> Tensor:
        return last(Script([start, ("tick", [(both[0], [5]), (both[1], [token])])]))[0]

    assert float((then(6) - then(7)).abs().max()) > 1e-3


def test_several_tokens_of_a_row_are_causal_in_their_block_and_seen_whole_by_others() -> None:
    def played(tail: int) -> list[Tensor]:
        rows = [([("b", 0, None), ("a", 0, None)], ids(4, 1)), ([("b", 0, None)], [*ids(3, 2), tail])]
        return last(Script([("tick", rows)]))

    one, other = played(8), played(9)
    assert torch.equal(one[1][:3], other[1][:3])  # b's own first tokens do not see its last
    assert float((one[0][0] - other[0][0]).abs().max()) > 1e-3  # a's first token does


def test_a_gap_keeps_positions_and_a_splice_moves_up() -> None:
    made, tokens = engine("llama"), ids(12, 3)
    a = made.block()
    made.forward([Row(View(a), ids=tokens)])
    results = []
    for view in (View(a).gap(3, 6), View(a).splice(3, 6), View(a)):
        b = made.block()
        results.append(made.forward([Row(view.then(b), ids=[4])]).logits[0])
    for cut, got in (([("a", 0, 3), 3, ("a", 6, 12)], results[0]), ([("a", 0, 3), ("a", 6, 12)], results[1])):
        oracle = Oracle(model("llama"))
        oracle.tick([([("a", 0, None)], tokens)])
        oracle.tick([([*cut, ("b", 0, None)], [4])])
        assert float((oracle.solve().logits[-1] - got).abs().max()) < 1e-9
    assert float((results[0] - results[1]).abs().max()) > 1e-3
    assert float((results[0] - results[2]).abs().max()) > 1e-3


def test_moved_tokens_are_what_they_were() -> None:
    """Moving changes nothing for a reader that finds the tokens at the same positions."""
    made = engine("mistral", 3)
    a, b, history = made.block(), made.block(), made.block()
    made.forward([Row(View(a), ids=ids(5, 4))])
    made.forward([Row(View(a, b), ids=ids(4, 5))])
    before = made.forward([Row(View(a, b, made.block()), ids=[3, 4])], every=True)
    made.compact([Span(a, 2), b], into=history)
    after = made.forward([Row(View(Span(a, 0, 2), history, made.block()), ids=[3, 4])], every=True)
    assert before.every is not None
    assert after.every is not None
    assert float((before.every[0] - after.every[0]).abs().max()) < 1e-9
    assert history.ids == ids(5, 4)[2:] + ids(4, 5)


def test_long_rows_go_through_in_parts() -> None:
    """The engine's prefill_chunk is 7 here: a lone row of 23 takes four ticks and is the same as one."""
    made, tokens = engine("mistral"), ids(23, 6)
    whole = Engine(model("mistral"), kv_tokens=256, prefill_chunk=100)
    ticks = made.ledger.ticks
    parts = made.forward([Row(View(made.block()), ids=tokens)], every=True, hidden=True)
    assert made.ledger.ticks - ticks == 4
    once = whole.forward([Row(View(whole.block()), ids=tokens)], every=True, hidden=True)
    assert whole.ledger.ticks == 1
    assert parts.every is not None
    assert once.every is not None
    assert parts.hidden is not None
    assert once.hidden is not None
    assert parts.every[0].shape == (23, VOCAB)
    assert float((parts.every[0] - once.every[0]).abs().max()) < 1e-9
    assert float((parts.hidden - once.hidden).abs().max()) < 1e-9
    assert float((parts.logits[0] - once.every[0][-1]).abs().max()) < 1e-9


def test_latent_rows_are_their_embeddings() -> None:
    """Embeddings of ids, given as embeddings, do what the ids do; and a hidden state can be fed back."""
    made = engine("llama")
    tokens = ids(6, 7)
    table = model("llama").get_input_embeddings().weight.detach()
    a, b = made.block(), made.block()
    by_id = made.forward([Row(View(a), ids=tokens)], hidden=True, every=True)
    by_row = made.forward([Row(View(b), embeds=table[tokens])], every=True)
    assert by_id.every is not None
    assert by_row.every is not None
    assert torch.equal(by_id.every[0], by_row.every[0])
    assert b.ids == [-1] * 6
    assert by_id.hidden is not None
    fed = made.forward([Row(View(a), embeds=by_id.hidden)]).logits[0]
    oracle = Oracle(model("llama"))
    oracle.tick([([("a", 0, None)], tokens)])
    oracle.tick([([("a", 0, None)], by_id.hidden)])
    assert float((oracle.solve().logits[-1] - fed).abs().max()) < 1e-9


def test_many_short_spans_are_read_as_one() -> None:
    """200 spans of the middles of blocks, in any order, around a gap: what the oracle says, and in few segments."""
    made, lengths = engine("llama", 3), [3 + at % 4 for at in range(100)]
    blocks = [made.block() for _ in lengths]
    texts = [ids(length, at) for at, length in enumerate(lengths)]
    made.forward([Row(View(block), ids=text) for block, text in zip(blocks, texts, strict=True)])
    order = random.Random(5).sample(range(100), 100)
    cuts = [(at, 1, 3) for at in order] + [(at, 0, 1) for at in order]
    own = made.block()
    spans = [Span(blocks[at], lo, hi) for at, lo, hi in cuts]
    view = View(*spans[:70], Gap(3), *spans[70:], own)
    got = made.forward([Row(view, ids=[1, 2])], every=True)
    oracle = Oracle(model("llama"))
    oracle.tick([([(at, 0, None)], text) for at, text in enumerate(texts)])
    oracle.tick([([*cuts[:70], 3, *cuts[70:], ("own", 0, None)], [1, 2])])
    assert got.every is not None
    assert float((oracle.solve().logits[-2:] - got.every[0]).abs().max()) < 1e-9
    own.append([3])
    assert len(Planner().plan([view], [1]).segments) <= 3
