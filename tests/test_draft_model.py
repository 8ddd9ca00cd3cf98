"""A smaller model that says what may come: the same tokens to the last bit as without it, and no page lost.

Covers models that agree and that do not, temperatures, penalties, grammars, several streams (the runs of
``test_speculation.py``, a sample here and a thousand in the slow lane), what is read again and what is not, forks, a
cache that is too small, texts that it does not pay for, and models of other tokenizers. Not covered: speed
(``kvorum bench --speculation --draft NAME``).
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from typing import Any

import pytest

import test_speculation as runs
import toy_engine
from kvorum import Engine, Row, View
from kvorum.backends.fake import FakeBackend
from kvorum.engine.budget import Ledger
from kvorum.engine.speculation import draft_model
from kvorum.engine.speculation.draft_model import DraftModel, Unfinished
from kvorum.engine.speculation.repeats import Repeat, Repeats
from kvorum.errors import BadRequest
from kvorum.sampling.sampling import Draw, Sampling


def drafted(draft: Engine, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Engine, DraftModel]:
    """A packed model with that draft, which is asked at once and costs nothing, and no repeats beside it."""
    one = runs.engine(True, "packed", **options)
    one.draft_by(draft)
    assert one.executor.speculation is not None
    model = one.executor.speculation.draft
    assert model is not None
    model.cost = 0.0
    monkeypatch.setattr(Repeats, "find", lambda *_: Repeat())
    return one, model


def compared(one: Engine, seeds: range) -> Ledger:
    """Each of those runs against the same without speculation."""
    plain, total = runs.engine(False, "packed"), Ledger()
    for seed in seeds:
        found, ledger = runs.written(one, seed)
        expected, before = runs.written(plain, seed)
        assert found == expected, seed
        assert (ledger.ticks, ledger.decoded, ledger.prefill) == (before.ticks, before.decoded, before.prefill), seed
        assert one.pool.free == plain.pool.free
        total.add(ledger)
    return total


def nothing_is_held(model: DraftModel) -> None:
    gc.collect()
    assert model.pool.free == model.pool.pages


def test_a_model_that_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the model itself, so that what it says comes, at any temperature."""
    one, model = drafted(runs.engine(False, "packed"), monkeypatch)
    total = compared(one, range(12))
    assert total.accepted > 150
    assert total.accepted > 0.8 * total.drafted
    nothing_is_held(model)


def other() -> Engine:
    """A model that knows nothing of the other one, with a vocabulary that is larger."""
    return Engine(FakeBackend(280, ends=[265]), toy_engine.tokenizer())


def test_a_model_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    one, model = drafted(other(), monkeypatch)
    total = compared(one, range(12))
    assert total.drafted > 50
    assert total.accepted < 0.7 * total.drafted, "few tokens are allowed, and both draw with the same numbers"
    nothing_is_held(model)


@pytest.mark.slow
@pytest.mark.parametrize("agrees", [True, False])
def test_a_thousand_runs(agrees: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    one, model = drafted(runs.engine(False, "packed") if agrees else other(), monkeypatch)
    compared(one, range(2000, 2500))
    nothing_is_held(model)


# -- what is read --------------------------------------------------------------------------------------------------


class Counting(FakeBackend):
    """Notes how many tokens each forward reads."""

    def __init__(self, **options: Any) -> None:
        super().__init__(266, ends=[265], **options)
        self.read_tokens: list[int] = []

    def forward(self, work: Any) -> Any:
        self.read_tokens.append(len(work.ids))
        return super().forward(work)


def asked(model: DraftModel, engine: Engine, own: Any, ids: list[int], count: int = 3) -> list[int]:
    (found,) = model.draft([Unfinished(own, ids, Draw(Sampling(), 0, 0, len(ids)), count)])
    return found


def counting(**options: Any) -> tuple[Engine, Counting, DraftModel]:
    backend, one = Counting(**options), runs.engine(False)
    model = DraftModel(backend, one.shape, frozenset())
    model.cost = 0.0
    return one, backend, model


def test_what_was_read_is_not_read_again() -> None:
    one, backend, model = counting()
    own, text = one.block(), list(range(1, 21))
    first = asked(model, one, own, text)
    assert len(first) == 3
    assert backend.read_tokens == [20, 1, 1]
    assert asked(model, one, own, [*text, *first]) != first
    assert backend.read_tokens[3:] == [1, 1, 1], "what came was read when it was drafted, but for the last token"
    again = asked(model, one, own, [*text, 77])
    assert backend.read_tokens[6:] == [1, 1, 1], "what did not come is taken back"
    fresh = counting()
    assert again == asked(fresh[2], fresh[0], fresh[0].block(), [*text, 77])


def test_forks_go_on_from_what_another_text_read() -> None:
    one, backend, model = counting()
    text = list(range(1, 101))
    old, new = one.block(), one.block()
    asked(model, one, old, text)
    fork = [*text[:60], 5, 6, 7]
    backend.read_tokens.clear()
    found = asked(model, one, new, fork)
    assert backend.read_tokens == [3, 1, 1]
    fresh = counting()
    assert found == asked(fresh[2], fresh[0], fresh[0].block(), fork)
    changed = [*text[:50], *range(200, 210)]  # the old text goes on otherwise, from before the fork
    told = asked(model, one, old, changed)
    assert told == asked(fresh[2], fresh[0], fresh[0].block(), changed)
    assert asked(model, one, new, [*fork, found[0]])[:2] == found[1:], "and the fork is as it was"
    del old, new
    nothing_is_held(model)


def test_a_long_text_is_read_in_parts_and_only_its_end() -> None:
    one, backend, model = counting()
    own = one.block()
    own.append([1] * 200)
    text = [at % 250 + 1 for at in range(draft_model.WINDOW + 700)]
    ticks = 0
    while not (found := asked(model, one, own, text)):
        ticks += 1
    assert len(found) == 3
    assert max(backend.read_tokens) == draft_model.STEP
    assert draft_model.WINDOW / 2 <= sum(backend.read_tokens) <= draft_model.WINDOW + 3
    assert ticks == sum(n == draft_model.STEP for n in backend.read_tokens) - (backend.read_tokens[-3] == 128)


def test_a_text_must_be_worth_reading() -> None:
    one, backend, model = counting()
    model.cost = 0.5
    own, text = one.block(), [at % 250 + 1 for at in range(500)]
    assert not asked(model, one, own, text)
    assert not backend.read_tokens
    own.append([1] * 20)
    asked(model, one, own, text)
    assert backend.read_tokens


def test_no_room_and_latent_steps() -> None:
    one, backend, model = counting(kv_tokens=64)
    first, second = one.block(), one.block()
    assert asked(model, one, first, list(range(1, 40)))
    assert not asked(model, one, second, list(range(60, 110))), "there is no room"
    assert model.pool.free == model.pool.pages
    assert asked(model, one, second, list(range(60, 110)))
    assert not asked(model, one, first, [1, 2, -1, 3]), "a latent step has no id"
    assert not asked(model, one, first, [1, 2, backend.shape.vocab, 3]), "a token that only the other one has"
    del first, second
    nothing_is_held(model)


# -- where it is asked ---------------------------------------------------------------------------------------------


def test_it_falls_silent_where_it_does_not_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    one, model = drafted(other(), monkeypatch)
    model.cost = 0.3
    asked_for: list[int] = []
    draft = model.draft

    def noted(texts: Sequence[Unfinished]) -> list[list[int]]:
        asked_for.append(len(texts))
        return draft(texts)

    monkeypatch.setattr(model, "draft", noted)

    async def go() -> None:
        view = View(one.block())
        async for _ in one.decode(view, ids=[1, 2, 3], sampling=Sampling(temperature=1.0), max_tokens=300):
            pass

    asyncio.run(go())
    assert 0 < len(asked_for) < 30


def test_another_tokenizer_is_one_clear_error() -> None:
    one, wrong = runs.engine(True), runs.engine(False)
    words = dict(wrong.tokenizer.get_vocab())

    class Other:
        def get_vocab(self) -> dict[str, int]:
            first, second = sorted(words, key=words.__getitem__)[40:42]
            return {**words, first: words[second], second: words[first]}

    wrong.tokenizer, wrong.name = Other(), "small"
    with pytest.raises(BadRequest, match=r"small cannot draft for .*: token 40 is .*; take a smaller model"):
        one.draft_by(wrong)
    with pytest.raises(BadRequest, match="loaded without speculation"):
        runs.engine(False).draft_by(runs.engine(False))
    with pytest.raises(BadRequest, match="Speculation needs packed weights"):
        toy_engine.engine().draft_by(runs.engine(False))
    wrong.tokenizer = None
    with pytest.raises(BadRequest, match="both must be loaded with their tokenizers"):
        one.draft_by(wrong)
    one.forward([Row(View(one.block()), ids=[1])])
