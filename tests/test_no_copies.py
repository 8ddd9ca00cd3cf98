"""hogwild with no_copied_ngram: nobody writes n tokens that another wrote before, and who is at the same words waits.

The judge knows the trace alone: who picked which token in which tick. Covers several n, a replay, a team that would
only ever copy, and refusals. What it is worth with a real model is measured by ``benchmarks/copying.py``.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

import toy_engine
from kvorum import Budget, Result, Sampling, programs
from kvorum.errors import BadRequest
from kvorum.programs.hogwild.prompts import words

ENGINE = toy_engine.fake(kv_tokens=16384)
WORDS = words(toy_engine.tokenizer().get_vocab())


def play(size: int, *, seed: int = 0, temperature: float = 1.0, **given: Any) -> Result:
    options: dict[str, Any] = {"workers": 3, "answer": "text", "suppress_end": True, "loops": "go_on", **given}
    return ENGINE.run(
        programs.hogwild,
        "List things.",
        no_copied_ngram=size,
        sampling=Sampling(temperature=temperature, top_k=4),
        budget=Budget(ticks=90),
        seed=seed,
        **options,
    )


def copies(result: Result, size: int) -> int:
    """How many n-grams that end in a word one wrote behind another; and nobody waits where all stand elsewhere."""
    own: dict[str, list[int]] = defaultdict(list)
    seen: dict[tuple[int, ...], set[str]] = defaultdict(set)
    found = 0
    for event in result.trace.events:
        if event["event"] != "tick":
            continue
        new = {}
        for row in event["rows"]:
            if "token" in row:
                own[row["worker"]].append(row["token"])
                new[row["worker"]] = tuple(own[row["worker"]][-size:])
        for name, gram in new.items():
            found += len(gram) == size and gram[-1] in WORDS and bool(seen[gram] - {name})
        for name, gram in new.items():
            seen[gram].add(name)
        starts = [gram[:-1] for gram in new.values() if len(gram) == size]
        assert size == 0 or len(set(starts)) == len(starts), "two went on from the same words in one tick"
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [2, 3])
def test_no_ngram_of_another_is_written(size: int, seed: int) -> None:
    result = play(size, seed=seed)
    assert sum(len(worker.ids) for worker in result.workers) > 90
    assert copies(result, size) == 0


def test_without_it_they_copy() -> None:
    plain = play(0, temperature=0.1)
    own = [set(zip(worker.ids, worker.ids[1:], strict=False)) for worker in plain.workers]
    assert any(one & other for one in own for other in own if one is not other)


def test_a_replay_bans_the_same(tmp_path: Any) -> None:
    first = play(2, seed=4)
    again = ENGINE.run(
        programs.hogwild,
        "List things.",
        workers=3,
        answer="text",
        suppress_end=True,
        loops="go_on",
        no_copied_ngram=2,
        sampling=Sampling(temperature=1.0, top_k=4),
        budget=Budget(ticks=90),
        seed=4,
        replay=first.trace.events,
    )
    assert again.differences == []
    assert [worker.ids for worker in again.workers] == [worker.ids for worker in first.workers]


@pytest.mark.parametrize("channel", ["text", "none", "zeroed"])
def test_it_holds_whatever_is_seen(channel: str) -> None:
    assert copies(play(2, channel=channel), 2) == 0


def test_single_words_are_nobodys() -> None:
    with pytest.raises(BadRequest, match="no_copied_ngram=1 would"):
        play(1)
