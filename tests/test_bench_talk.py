"""The conversation of `kvorum bench --harness`: what each way of keeping it encodes, and that all read the same.

Covers: tokens encoded with blocks are those of the new texts; with text at the front, those behind the first change,
and what stands in the cache is what a prompt without a cache would hold. Not covered: seconds, and a llama-server.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import toy_engine
from kvorum.bench.machine import describe_machine
from kvorum.bench.talk.arms import Pieces, TalkFigures, as_blocks, as_text, play
from kvorum.bench.talk.script import NAMES, Turn, make_turns
from kvorum.bench.talk.session import interval, measure, talk_json
from kvorum.runs.run import Run


def test_one_entry_changes_before_each_question() -> None:
    turns = make_turns(40)
    assert turns == make_turns(40)
    for before, after in pairwise(turns):
        assert len(after.memory) == len(NAMES)
        assert sum(a != b for a, b in zip(before.memory, after.memory, strict=True)) <= 1
        assert len(set(before.skills) ^ set(after.skills)) == 1
        assert any(after.right in entry for entry in after.memory)


def test_blocks_encode_what_is_new_and_text_what_stands_behind_a_change() -> None:
    engine = toy_engine.engine(kv_tokens=16384)
    found = measure(engine, server="", gguf=None, tell=lambda words: None, turns=5)
    blocks, text = found
    assert blocks.new == text.new
    assert blocks.encoded == blocks.new, "each text once, whatever comes and goes"
    assert text.encoded[0] == text.new[0]
    assert all(text.encoded[at] > 2 * blocks.encoded[at] for at in range(1, 5))
    assert len(blocks.answers) == len(blocks.first) == 5
    ways = talk_json(found, "toy", describe_machine(), ["kvorum"])["ways"]
    assert isinstance(ways, list)
    assert len(ways) == 2


def test_forty_turns_encode_their_new_texts_and_no_others() -> None:
    """The whole conversation: memory that changes at each turn, five skills that come and go."""
    turns = make_turns(40)
    figures = play(toy_engine.fake(kv_tokens=32768, max_positions=32768), "blocks", turns, as_blocks)
    assert figures.encoded == figures.new
    assert len(figures.answers) == 40
    assert len({skill for turn in turns for skill in turn.skills}) == 5


def test_text_at_the_front_is_the_prompt_itself() -> None:
    """What the cache shows behind a turn, against the prompt made of its pieces alone."""
    engine, turns = toy_engine.engine(kv_tokens=16384), make_turns(3)
    shown: list[int] = []

    async def arm(run: Run, turns: Sequence[Turn], figures: TalkFigures) -> None:
        await as_text(run, turns, figures)
        pieces = Pieces.of(run)
        worker = run.workers[-1]
        front = [token for words in pieces.front(turns[-1]) for token in pieces.ids(words)]
        shown.extend(worker.view.ids)
        assert shown[: len(pieces.opening) + len(front)] == [*pieces.opening, *front]
        said = pieces.question(turns[-1], first=False)
        assert shown[-len(said) - len(worker.ids) + 1 :][: len(said)] == said

    play(engine, "text", turns, arm)
    assert shown


def test_the_interval() -> None:
    low, high = interval(20, 40)
    assert round(low, 2) == 0.35
    assert round(high, 2) == 0.65
