"""Controls of hogwild: the same team whose members do not really share blocks.

Scripted workers write the same words over every channel, so that what each sees is known beforehand. Covers: over
"text" a reader learns what was written and no more; blanks take the places of the real
tokens and hold nothing; a mismatched team shows its own words; hidden workers do not depend on each other; private
parts and replay. Not covered: what a real model makes of it.
"""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import Tensor

import local_backend
from kvorum import Budget, Engine, Result, Run, Task, programs
from kvorum.errors import BadRequest
from kvorum.kv import Span
from kvorum.programs.hogwild.hogwild import CHANNELS
from scripted_workers import END, VOCAB, block_of, engine

HEAD: dict[str, Any] = {"openings": False, "suppress_markup": False, "rules": "published", "final_tokens": 2}
TEXTS = {"Alice": "One.\n\nTwo.\n\nThree and so on", "Bob": "Red it is now.\n\nBlue", "Carol": "x" * 60}


seen: dict[int, dict[str, str]] = {}
lengths: dict[int, dict[str, int]] = {}
"""What everyone saw when the budget was spent, as text and in tokens."""


def follow(worker: Any, text: str) -> None:
    def allow(logits: Tensor) -> Tensor:
        at = len(worker.ids)
        return torch.arange(VOCAB) == (ord(text[at]) if at < len(text) else ord("."))

    worker.allow = allow


def play(
    texts: dict[str, str] = TEXTS, *, ticks: int = 30, task: Task | str = "Count.", **options: Any
) -> tuple[Result, Run]:
    """A run whose workers write what is given."""
    held: list[Run] = []

    def control(run: Run) -> None:
        held.append(run)
        for worker in run.workers:
            follow(worker, texts[worker.name])
        force = run.force

        def before_the_answer() -> None:
            seen[id(run)] = {name: "".join(texts_of(run, name)) for name in texts}
            lengths[id(run)] = {name: sum(layout(run, name)) for name in texts}
            force()

        run.force = before_the_answer  # type: ignore[method-assign]

    options = {"final_tokens": 8, **HEAD, **options}
    budget = Budget(decoded=ticks * len(texts) + options["final_tokens"])  # some are for the answer
    result = engine().run(
        programs.hogwild, task, workers=list(texts), budget=budget, control=control, seed=3, **options
    )
    return result, held[0]


def texts_of(run: Run, name: str) -> list[str]:
    worker = next(worker for worker in run.workers if worker.name == name)
    return [run.read([token for token in block_of(item).ids if token >= 0]) for item in worker.view.items]


def layout(run: Run, name: str) -> list[int]:
    worker = next(worker for worker in run.workers if worker.name == name)
    return [len(item) for item in worker.view.items]


@pytest.mark.forward
def test_the_others_words_as_text() -> None:
    """The same words in the same places as over the cache, and every reader's numbers are those of the text alone."""
    (cache, one), (text, other) = play(), play(channel="text")
    assert [worker.text for worker in one.workers] == [worker.text for worker in other.workers]
    assert seen[id(one)] == seen[id(other)]
    assert text.ledger.decoded == cache.ledger.decoded
    # every token of the others once more for each reader, besides what both encode
    written = sum(len(worker.ids) for worker in one.workers)
    assert text.ledger.prefill - cache.ledger.prefill > 1.5 * written


@pytest.mark.forward
def test_over_text_a_reader_learns_what_was_written_and_no_more() -> None:
    """Bob is told something that he does not write: over the cache it changes Alice's numbers, over text it cannot."""
    chances: dict[str, list[list[float]]] = {"text": [], "cache": []}
    for channel, found in chances.items():
        for secret in ("the door is red", "the sky is blue"):
            result, _ = play(channel=channel, task=Task("Count.", private={"Bob": secret}))
            rows = [row for event in result.trace.events if event["event"] == "tick" for row in event["rows"]]
            found.append([row["logprob"] for row in rows if row["worker"] == "Alice"])
    assert chances["text"][0] == chances["text"][1]
    assert chances["cache"][0] != chances["cache"][1]


@pytest.mark.parametrize("channel", ["zeroed", "random"])
def test_blanks_take_the_places_of_the_words(channel: str) -> None:
    (_, one), (_, other) = play(), play(channel=channel)
    assert lengths[id(one)] == lengths[id(other)]
    bob = other.workers[1].view
    assert "Two" not in "".join(texts_of(other, "Bob"))
    blanks = [item for item in bob.items if block_of(item).name.startswith(channel)]
    assert len(blanks) == 2
    kv = local_backend.cache(engine())
    for item in blanks:
        slots = block_of(item).table.slot_tensor(0, len(item))
        norms = [float(part[:, slots].abs().max()) for part in (*kv.keys, *kv.values)]
        assert (max(norms) == 0) == (channel == "zeroed")


@pytest.mark.forward
def test_hidden_workers_do_not_depend_on_each_other() -> None:
    """The same words whatever the others write; over the cache they differ."""
    free: dict[tuple[str, str], list[int]] = {}
    for channel in ("none", "cache"):
        for bob in ("Red is it.\n\nBlue", "Green was it.\n\nGrey"):
            held: list[Run] = []

            def control(run: Run, bob: str = bob, held: list[Run] = held) -> None:
                held.append(run)
                follow(run.workers[1], bob)
                run.workers[0].ban([END])

            engine().run(
                programs.hogwild,
                "Count.",
                workers=2,
                budget=Budget(ticks=24),
                control=control,
                seed=1,
                channel=channel,
                **HEAD,
            )
            free[channel, bob] = held[0].workers[0].ids
    one, other = (free["none", bob] for bob in ("Red is it.\n\nBlue", "Green was it.\n\nGrey"))
    assert one == other
    assert len({tuple(ids) for (channel, _), ids in free.items() if channel == "cache"}) == 2


@pytest.mark.forward
def test_a_mismatched_team_shows_its_own_words() -> None:
    texts = {"Alice": "One.\n\nTwo.\n\nThree", "Bob": "Red is it.\n\nBlue"}

    def control(run: Run) -> None:
        held.append(run)
        for worker in run.workers:
            follow(worker, texts[worker.name])

    held: list[Run] = []
    other: dict[str, Any] = {"other": "Name a river.", "other_private": {"Bob": "the Nile is long"}}
    task = Task("Count.", private={"Alice": "three", "Bob": "four"})
    result = engine().run(
        programs.hogwild,
        task,
        workers=2,
        budget=Budget(ticks=40),
        control=control,
        channel="mismatched",
        **other,
        **HEAD,
    )
    alice = "".join(texts_of(held[0], "Alice"))
    assert "Count." in alice
    assert "three" in alice
    assert "One." in alice
    assert not any(word in alice for word in ("Red", "Blue", "river", "Nile", "four", "Alice~", "Bob~"))
    assert "**Bob [1]:**" in alice
    written = {row["worker"] for event in result.trace.events if event["event"] == "tick" for row in event["rows"]}
    assert written == {"Alice", "Bob", "Alice~", "Bob~"}
    shadow = "".join(
        row["text"]
        for event in result.trace.events
        if event["event"] == "tick"
        for row in event["rows"]
        if row["worker"] == "Bob~"
    )
    assert shadow[:6] in alice
    assert [worker.name for worker in result.workers] == ["Alice", "Bob"]


@pytest.mark.forward
@pytest.mark.parametrize("channel", CHANNELS)
def test_every_channel_is_replayed(channel: str) -> None:
    options: dict[str, Any] = {"other": "Name a river."} if channel == "mismatched" else {}
    settings: dict[str, Any] = {"workers": 3, "budget": Budget(ticks=30), "channel": channel, "seed": 5, **HEAD}
    task = Task("Count.", private={"Bob": "seven"})
    first = engine().run(programs.hogwild, task, **settings, **options)
    again = engine().run(programs.hogwild, task, replay=first.trace.events, **settings, **options)
    assert again.differences == []
    assert again.ledger.tokens == first.ledger.tokens
    assert again.answer == first.answer


@pytest.mark.forward
def test_everybody_may_leave_over_any_channel() -> None:
    for channel in CHANNELS:
        held: list[Run] = []

        def control(run: Run, held: list[Run] = held) -> None:
            held.append(run)
            for worker in run.workers:
                follow(worker, "Bye." + chr(END))

        options: dict[str, Any] = {"other": "Name a river."} if channel == "mismatched" else {}
        result = engine().run(
            programs.hogwild,
            "Count.",
            workers=3,
            budget=Budget(ticks=200),
            control=control,
            channel=channel,
            **HEAD,
            **options,
        )
        assert (result.outcome, result.spent) == ("forced", None)
        last = held[0].workers[2].view
        seen = "".join(
            held[0].read([t for t in item.block.ids if t >= 0]) for item in last.items if isinstance(item, Span)
        )
        assert seen.count("Bye.") == {"cache": 3, "text": 3}.get(channel, 1)
        assert "**Carol [1]:** " in seen


@pytest.mark.forward
def test_what_is_no_control_is_refused() -> None:
    wrong: list[dict[str, Any]] = [{"layout": "contiguous"}, {"memory": 1}, {"final": "reencode"}]
    for options in wrong:
        with pytest.raises(BadRequest, match="control of the plain team"):
            engine().run(programs.hogwild, "Count.", channel="text", **HEAD, **options)
    with pytest.raises(BadRequest, match="needs other"):
        engine().run(programs.hogwild, "Count.", channel="mismatched", **HEAD)


@pytest.mark.forward
def test_pages_come_back() -> None:
    gc.collect()  # earlier tests leave runs that refer to themselves
    free = engine().pool.free
    for channel in ("text", "zeroed"):
        engine().run(programs.hogwild, "Count.", workers=3, budget=Budget(ticks=20), channel=channel, **HEAD)
    assert engine().pool.free == free
    assert isinstance(engine(), Engine)
