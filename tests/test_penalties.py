"""Penalties and biases against independent definitions, natively and plainly, in streams and in runs.

Repetition against transformers' own processor and its ``generate``; frequency, presence and DRY against the rules of
llama.cpp spelled out here token by token; what breaks repeats off; replays. Not covered: what the filters do afterwards
(test_sampling.py), the server's fields (test_serve_openai.py).
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import RepetitionPenaltyLogitsProcessor

import toy_engine
from kvorum import Budget, Engine, Sampling, View, programs
from kvorum.cli.solve import read_sampling
from kvorum.engine.history import breakers
from kvorum.errors import BadRequest, UnknownName
from kvorum.models.tokenizer import Tokenizer
from kvorum.sampling.penalties import changed
from kvorum.sampling.reference import logprob, pick
from kvorum.sampling.sampler import draw_all
from kvorum.sampling.sampling import Breakers, Draw, History, Pick
from kvorum.store.traces import read

VOCAB = 40


def after(logits: np.ndarray[Any, Any], sampling: Sampling, history: History) -> np.ndarray[Any, Any]:
    """All logits once the penalties are in them."""
    found = logits.copy()
    ids, values = changed(logits, Draw(sampling, 0, 0, 0, history=history))
    assert sorted(set(ids.tolist())) == ids.tolist()
    found[ids] = values
    return found


def lines(seed: int, size: int = VOCAB) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(0, 4, size).astype(np.float32)


ids = st.lists(st.integers(0, 5) | st.integers(0, VOCAB - 1), max_size=60)


@given(seed=st.integers(0, 99), seen=ids, penalty=st.sampled_from((1.05, 1.3, 2.0, 0.7)))
def test_repetition_is_that_of_transformers(seed: int, seen: list[int], penalty: float) -> None:
    """Bit for bit, the prompt included, however often a token was seen."""
    logits = lines(seed)
    got = after(logits, Sampling(repetition_penalty=penalty), History(seen, ()))
    if seen:
        processor = RepetitionPenaltyLogitsProcessor(penalty)
        logits = processor(torch.tensor([seen]), torch.tensor(logits[None])).numpy()[0]
    assert np.array_equal(got, logits)


def llama_penalties(
    logits: Sequence[float], tokens: Sequence[int], last_n: int, repeat: float, freq: float, present: float
) -> list[float]:
    """llama_sampler_penalties_apply, over the last ``last_n`` tokens."""
    f = np.float32
    window = list(tokens) if last_n < 0 else list(tokens)[max(0, len(tokens) - last_n) :]
    found = []
    for token, value in enumerate(logits):
        logit, count = f(value), window.count(token)
        if count:
            logit = f(logit * f(repeat)) if logit <= 0 else f(logit / f(repeat))
            logit = f(logit - f(f(f(count) * f(freq)) + f(present)))
        found.append(float(logit))
    return found


@given(
    seed=st.integers(0, 99),
    tokens=ids,
    last_n=st.sampled_from((-1, 0, 1, 7, 64)),
    repeat=st.sampled_from((1.0, 1.1, 1.7)),
    freq=st.sampled_from((0.0, 0.5, -1.0)),
    present=st.sampled_from((0.0, 0.3, 2.0)),
)
def test_repetition_frequency_and_presence_are_those_of_llama_cpp(
    seed: int, tokens: list[int], last_n: int, repeat: float, freq: float, present: float
) -> None:
    """It counts all tokens alike: the same for a row that has written all that it has seen."""
    sampling = Sampling(
        repetition_penalty=repeat, frequency_penalty=freq, presence_penalty=present, penalty_last_n=last_n
    )
    got = after(lines(seed), sampling, History(tokens, tokens))
    assert got.tolist() == llama_penalties(lines(seed).tolist(), tokens, last_n, repeat, freq, present)


def test_frequency_and_presence_are_of_what_was_written_alone() -> None:
    logits, sampling = lines(3), Sampling(frequency_penalty=0.5, presence_penalty=0.25)
    got = after(logits, sampling, History([1, 1, 2, 7, 7, 9], [7, 7, 9]))
    want = logits.copy()
    want[7] -= np.float32(1.25)
    want[9] -= np.float32(0.75)
    assert np.array_equal(got, want)


def llama_dry(
    logits: Sequence[float],
    tokens: Sequence[int],
    last_n: int,
    multiplier: float,
    base: float,
    allowed: int,
    broken: Breakers,
) -> list[float]:
    """llama_sampler_dry_apply, its matches found by comparing one token after the other."""
    f = np.float32
    found = [f(value) for value in logits]
    window = list(tokens) if last_n < 0 else list(tokens)[max(0, len(tokens) - last_n) :]
    n = len(window)
    back = window[::-1]  # back[0] is the last token
    if n <= allowed:
        return [float(value) for value in found]
    limit = n
    for i in range(n):
        fitting = [
            len(tail)
            for tail in broken.get(back[i], ())
            if len(tail) <= i and all(tail[k] == back[i - k - 1] for k in range(len(tail)))
        ]
        if fitting:
            limit = i - max(fitting)
            break
    if limit < allowed:
        return [float(value) for value in found]
    longest: dict[int, int] = {}
    for k in range(1, n):
        match = 0
        while k + match < n and back[match] == back[k + match]:
            match += 1
        match = min(match, limit)
        if match >= allowed:
            longest[back[k - 1]] = max(longest.get(back[k - 1], 0), match)
    most = int(f(88.7228391) / f(math.log(f(base)))) if base > 1.000001 else 0
    for token, match in longest.items():
        exponent = match - allowed
        if most > 0 and exponent > most:
            exponent = most
        found[token] = f(found[token] - f(float(f(multiplier)) * float(f(base)) ** exponent))
    return [float(value) for value in found]


@settings(max_examples=200)
@given(
    seed=st.integers(0, 99),
    start=st.lists(st.integers(0, 4), max_size=30),
    turn=st.lists(st.integers(0, 4), min_size=1, max_size=6),
    times=st.integers(0, 60),
    last_n=st.sampled_from((-1, 0, 3, 20)),
    multiplier=st.sampled_from((0.8, 3.0)),
    base=st.sampled_from((1.0, 1.75, 1.01, 40.0)),
    allowed=st.integers(1, 4),
    broken=st.sampled_from(({}, {3: [()]}, {3: [(1,), (1, 0)], 2: [(2,)]}, {4: [()], 0: [(0, 0)]})),
)
def test_dry_is_that_of_llama_cpp(
    seed: int,
    start: list[int],
    turn: list[int],
    times: int,
    last_n: int,
    multiplier: float,
    base: float,
    allowed: int,
    broken: Breakers,
) -> None:
    tokens = start + turn * times
    sampling = Sampling(dry_multiplier=multiplier, dry_base=base, dry_allowed_length=allowed, dry_penalty_last_n=last_n)
    got = after(lines(seed), sampling, History(tokens, (), broken))
    with np.errstate(over="ignore"):
        want = llama_dry(lines(seed).tolist(), tokens, last_n, multiplier, base, allowed, broken)
    assert got.tolist() == want


def test_the_order_is_bias_repetition_frequency_dry() -> None:
    """A token that all of them are about; ids beyond the vocabulary and latent steps are left out."""
    sampling = Sampling(
        repetition_penalty=2.0,
        frequency_penalty=0.5,
        dry_multiplier=1.0,
        dry_allowed_length=1,
        logit_bias={2: 3.0, 900: 1.0},
    )
    got = after(np.array([0, 1, 1, -1], dtype=np.float32), sampling, History([2, -1], [2]))
    assert got.tolist() == [0, 1, (1 + 3) / 2 - 0.5, -1]
    got = after(np.array([0, 1, 1, -1], dtype=np.float32), sampling, History([2, 2], [2]))
    assert got.tolist() == [0, 1, (1 + 3) / 2 - 0.5 - 1, -1]
    assert Sampling(**json.loads('{"logit_bias": {"2": 3.0}}')).logit_bias == {2: 3.0}
    assert hash(Sampling(logit_bias={2: 3.0}))


@pytest.mark.parametrize(
    "given",
    [
        {"repetition_penalty": 0},
        {"repetition_penalty": math.inf},
        {"frequency_penalty": math.nan},
        {"presence_penalty": "1"},
        {"penalty_last_n": -2},
        {"dry_multiplier": -1.0},
        {"dry_base": 0.5},
        {"dry_allowed_length": 0},
        {"dry_penalty_last_n": 1.5},
        {"dry_sequence_breakers": "\n"},
        {"dry_sequence_breakers": [""]},
        {"logit_bias": [3]},
        {"logit_bias": {"x": 1}},
        {"logit_bias": {-1: 1}},
        {"logit_bias": {1: math.inf}},
        {"logit_bias": {1: True}},
    ],
)
def test_what_cannot_be_is_refused_by_name(given: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=f"^Sampling: {next(iter(given))}"):
        Sampling(**given)


# -- drawn -----------------------------------------------------------------------------------------------------------

samplings = st.builds(
    Sampling,
    temperature=st.sampled_from((0.0, 0.7, 1.5)),
    top_k=st.sampled_from((0, 5)),
    top_p=st.sampled_from((1.0, 0.8)),
    banned=st.sampled_from(((), (3, 4))),
    repetition_penalty=st.sampled_from((1.0, 1.5)),
    frequency_penalty=st.sampled_from((0.0, 0.4)),
    presence_penalty=st.sampled_from((0.0, 1.0)),
    dry_multiplier=st.sampled_from((0.0, 2.0)),
    logit_bias=st.sampled_from(({}, {1: 5.0, 2: -100.0})),
)


@given(asked=st.lists(st.tuples(samplings, ids, st.booleans()), min_size=1, max_size=5), seed=st.integers(0, 999))
def test_a_tick_is_drawn_as_by_the_twin_and_its_logits_are_left(
    asked: list[tuple[Sampling, list[int], bool]], seed: int
) -> None:
    """Told are the chances under the model, penalties left out."""
    logits = 3 * torch.randn(len(asked), VOCAB, generator=torch.Generator().manual_seed(seed))
    before = logits.clone()
    draws = [
        Draw(sampling, 1, 2, at, telling, history=History(seen, seen[len(seen) // 2 :]))
        for at, (sampling, seen, telling) in enumerate(asked)
    ]
    for row, one, found in zip(logits, draws, draw_all(logits, draws), strict=True):
        want = pick(row, one)
        assert isinstance(found, Pick)
        assert found.id == want.id
        assert math.isnan(found.logprob) != one.telling
        if one.telling:
            assert found.logprob == pytest.approx(want.logprob, abs=1e-4)
            assert found.logprob == pytest.approx(logprob(row, found.id), abs=1e-4)
    assert torch.equal(logits, before)


def test_a_row_without_history_is_refused_alone_and_rows_that_share_memory_are_drawn() -> None:
    logits = torch.arange(5.0).expand(3, 5)
    push = Sampling(repetition_penalty=100.0, logit_bias={0: 1.0})
    asked = [Draw(push, 0, 0, 0, history=History([4], ())), Draw(Sampling(), 0, 0, 0), Draw(push, 0, 0, 0)]
    for rows in (logits, logits.contiguous()):
        first, second, third = draw_all(rows, asked)
        assert isinstance(first, Pick)
        assert isinstance(second, Pick)
        assert (first.id, second.id) == (3, 4)
        assert isinstance(third, BadRequest)
        assert "no history" in str(third)


# -- what breaks repeats off ---------------------------------------------------------------------------------------


def test_breakers_are_found_in_the_tokens_of_a_text() -> None:
    tokenizer = toy_engine.tokenizer()
    vocab: Mapping[str, int] = tokenizer.get_vocab()
    colon = breakers(cast("Tokenizer", tokenizer), (":",))
    assert {name: colon.get(vocab[name]) for name in (":", '":', '":"', '"')} == {
        ":": [()],
        '":': [()],
        '":"': [()],
        '"': None,
    }
    pair = breakers(cast("Tokenizer", tokenizer), ('"}',))
    assert pair[vocab['"}']] == [()]
    assert pair[vocab['"']] == [(vocab["}"],)]
    assert pair[vocab['":"']] == [(vocab["}"],)]
    assert vocab["}"] not in pair
    assert breakers(cast("Tokenizer", tokenizer), ('"}',)) is pair


def test_a_repeat_does_not_reach_across_a_breaker() -> None:
    tokenizer = toy_engine.tokenizer()
    seen = tokenizer("name: abcd, name: abcd")["input_ids"]
    found = {}
    for texts in ((), (":",)):
        sampling = Sampling(dry_multiplier=1.0, dry_base=2.0)
        history = History(seen, (), breakers(cast("Tokenizer", tokenizer), texts))
        got = after(np.zeros(300, dtype=np.float32), sampling, history)
        found[texts] = got[tokenizer(",")["input_ids"][0]]
    assert found[()] == -(2.0 ** (len(tokenizer("name: abcd")["input_ids"]) - 2))
    assert found[":",] == -(2.0 ** (len(tokenizer(" abcd")["input_ids"]) - 2))


# -- streams and runs ----------------------------------------------------------------------------------------------


async def stream(engine: Engine, sampling: Sampling, tokens: int) -> list[int]:
    view = View(engine.block())
    return [int(token) async for token in engine.decode(view, ids=PROMPT, sampling=sampling, max_tokens=tokens)]


PROMPT = [7, 9, 9, 30, 7]


@pytest.mark.forward
@pytest.mark.parametrize("penalty", [1.2, 3.0])
def test_a_greedy_stream_is_that_of_generate(penalty: float) -> None:
    engine = toy_engine.engine()
    got = asyncio.run(stream(engine, Sampling(repetition_penalty=penalty), 40))
    options: dict[str, Any] = {"max_new_tokens": 40, "do_sample": False, "repetition_penalty": penalty}
    want = cast("Any", toy_engine.llama(engine)).generate(torch.tensor([PROMPT]), **options)[0, len(PROMPT) :].tolist()
    assert got == want
    assert got != asyncio.run(stream(engine, Sampling(), 40))


def test_a_penalised_run_replays_to_the_token(tmp_path: Path) -> None:
    sampling = Sampling(
        repetition_penalty=1.3, frequency_penalty=0.2, dry_multiplier=0.8, logit_bias={5: 1.5}, penalty_last_n=50
    )
    path = tmp_path / "run.jsonl"
    options: dict[str, Any] = {"workers": 3, "budget": Budget(ticks=30), "sampling": sampling, "final_tokens": 4}
    whole = toy_engine.fake().run(programs.hogwild, "Count.", trace=path, **options)
    plain = toy_engine.fake().run(programs.hogwild, "Count.", **(options | {"sampling": Sampling()}))
    assert [worker.ids for worker in whole.workers] != [worker.ids for worker in plain.workers]
    events = read(path)
    start = events[0]
    assert start["event"] == "start"
    again = Sampling(**start["sampling"])
    assert again == sampling
    replayed = toy_engine.fake().run(programs.hogwild, "Count.", **(options | {"sampling": again, "replay": events}))
    assert not replayed.differences
    assert [worker.ids for worker in replayed.workers] == [worker.ids for worker in whole.workers]
    half = [event for event in events if event["event"] != "end"][: len(events) // 2]
    resumed = toy_engine.fake().run(programs.hogwild, "Count.", **(options | {"replay": half}))
    assert [worker.ids for worker in resumed.workers] == [worker.ids for worker in whole.workers]


def test_what_a_person_types() -> None:
    """``--sampling`` takes every field, by its name; what cannot be read is refused with one that can."""
    basis = Sampling(0.6, 0.95)
    given = ["dry_multiplier=0.8", "min_p=0.1", 'logit_bias={"7": -2.5}', "top_p=0.5", 'dry_sequence_breakers=["x"]']
    assert read_sampling(basis, given) == Sampling(
        0.6, 0.5, min_p=0.1, dry_multiplier=0.8, logit_bias={7: -2.5}, dry_sequence_breakers=("x",)
    )
    assert read_sampling(basis, []) == basis
    with pytest.raises(UnknownName, match="did you mean repetition_penalty"):
        read_sampling(basis, ["repetition_penalt=1"])
    with pytest.raises(BadRequest, match="--sampling 'min_p=' has no value"):
        read_sampling(basis, ["min_p="])
    with pytest.raises(BadRequest, match=r"^Sampling: min_p='x'"):
        read_sampling(basis, ['min_p="x"'])
