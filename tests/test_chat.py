"""A conversation: who sees what, what is asked beside an answer, stopping, room; and `kvorum chat` in a pipe."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import toy_engine
from kvorum import Budget, Engine, Result, Run, Sampling
from kvorum.cli import main
from kvorum.cli.chat import Typed
from kvorum.harness.conversation import GREETING, READY, TalkTurn, converse
from kvorum.runs.program import Program
from tiny_folder import tiny_folder


class Scripted:
    """Asks each question when so many ticks have been shown; at the end waits for all answers."""

    def __init__(self, questions: dict[int, str], stop_at: int = -1) -> None:
        self.todo, self.stop_at = sorted(questions.items()), stop_at
        self.shown = 0
        self.turns: dict[int, TalkTurn] = {}
        self.said: list[str] = []
        self._over = False

    def next(self, *, wait: bool) -> str | None:
        if self.todo and (wait or self.todo[0][0] <= self.shown):
            return self.todo.pop(0)[1]
        self._over = wait
        return None

    def over(self) -> bool:
        return self._over

    def stopped(self) -> bool:
        return self.shown >= self.stop_at >= 0

    def show(self, turn: TalkTurn) -> None:
        self.turns[turn.number] = turn
        self.shown += 1

    def say(self, words: str) -> None:
        self.said.append(words)


def talk(engine: Engine, said: Scripted, texts: dict[str, str] | None = None, tokens: int = 6) -> Result:
    async def function(run: Run) -> str | None:
        run.dismiss_workers()
        await converse(run, said, texts or {}, tokens=tokens)
        return None

    program = Program("chat", "a conversation", function)
    return engine.run(program, "talk", budget=Budget(), sampling=Sampling())


def views(result: Result) -> list[list[Any]]:
    return [[item[0] for item in event["items"]] for event in result.trace.events if event["event"] == "view"]


def test_a_turn_sees_those_before_and_nothing_is_encoded_twice() -> None:
    engine = toy_engine.fake()
    said = Scripted({0: "Who?", 1000: "And when?", 2000: "Why?"})
    result = talk(engine, said, {"text": "A text. "})
    assert views(result) == [
        ["text", "opening", "turn 1"],
        ["text", "opening", "turn 1", "turn 2"],
        ["text", "opening", "turn 1", "turn 2", "turn 3"],
    ]
    words = ["A text. ", "I will ask about this text.", "\n\n", READY]
    words += [f"\n\n{question}\n\n" for question in ("Who?", "And when?", "Why?")]
    assert result.ledger.prefill == sum(len(engine.tokenizer(part).input_ids) for part in words)
    assert [turn.finish for turn in said.turns.values()] == ["length"] * 3


def test_a_question_asked_meanwhile_is_answered_beside() -> None:
    engine = toy_engine.engine(torch.float64)
    said = Scripted({0: "Who?", 2: "When?", 1000: "Why?"})
    result = talk(engine, said, tokens=8)
    assert views(result) == [
        ["opening", "turn 1"],
        ["opening", "turn 2"],
        ["opening", "turn 1", "turn 2", "turn 3"],
    ]
    both = [e for e in result.trace.events if e["event"] == "tick" and len(e["rows"]) == 2]
    assert both
    ids = list(engine.tokenizer(f"{GREETING}\n\n{READY}\n\nWhen?\n\n").input_ids)
    pieces = [GREETING, "\n\n", READY, "\n\n", "When?", "\n\n"]
    ids = [token for piece in pieces for token in engine.tokenizer(piece).input_ids]
    for _ in range(8):
        ids.append(int(toy_engine.dense(toy_engine.llama(engine), ids, toy_engine.causal(len(ids)))[-1].argmax()))
    assert result.workers[1].ids == ids[-8:]


def test_answers_are_stopped_and_the_conversation_goes_on() -> None:
    said = Scripted({0: "Who?", 1000: "When?"}, stop_at=3)
    result = talk(toy_engine.fake(), said, tokens=20)
    assert said.turns[1].finish == "cut"
    assert 0 < len(result.workers[0].ids) < 20
    assert said.turns[2].finish == "cut"


def test_no_room_is_said_and_asked_on() -> None:
    said = Scripted({0: "x" * 500, 1: "Who?"})
    talk(toy_engine.fake(kv_tokens=256), said)
    assert len(said.said) == 1
    assert "more than the" in said.said[0]
    assert [turn.question for turn in said.turns.values()] == ["Who?"]


def test_what_an_answer_reserved_and_did_not_write_is_free_for_the_next() -> None:
    said = Scripted({0: "Who?", 1000: "When?"}, stop_at=3)
    talk(toy_engine.fake(kv_tokens=384), said, tokens=200)
    assert said.said == []
    assert [turn.question for turn in said.turns.values()] == ["Who?", "When?"]


def test_an_answer_that_had_company_names_its_question(capsys: pytest.CaptureFixture[str]) -> None:
    typed, turns = Typed(), [TalkTurn(number, f"{number}?", "It is.") for number in (1, 2, 3)]
    for turn in turns[:2]:
        typed.show(turn)
    for turn in turns:
        turn.finish = "end"
        typed.show(turn)
    assert capsys.readouterr().out == "[1?] It is. (0.0 s)\n\n[2?] It is. (0.0 s)\n\nIt is. (0.0 s)\n\n"


def test_a_typed_talk_stops_once_and_then_ends() -> None:
    typed = Typed()
    assert not typed.stop()
    typed.ask("Who?")
    assert typed.next(wait=False) == "Who?"
    assert typed.next(wait=False) is None
    turn = TalkTurn(1, "Who?", "It was")
    typed.show(turn)
    assert ("", "It was\n") in typed.drawing("")
    assert typed.stop()
    assert not typed.stop()
    assert typed.stopped()
    assert not typed.stopped()
    typed.close()
    assert typed.over()
    assert typed.next(wait=True) is None


@pytest.mark.parametrize("width", [120, 80, 40, 10])
def test_what_is_being_written_fits_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    typed = Typed()
    for number in (1, 2):
        typed.show(TalkTurn(number, "Who is it? " * 20, "word " * 500))
    drawn = "".join(piece[1] for piece in typed.drawing("reading"))
    assert drawn.endswith("> ")
    assert len(drawn) <= 10 + 2 * (5 * max(width, 20))


def test_lines_of_standard_input_are_answered_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KVORUM_HOME", str(tmp_path / "home"))
    tiny = str(tiny_folder(tmp_path / "tiny"))
    (tmp_path / "a.txt").write_text("A text.")
    words = ["chat", str(tmp_path / "a.txt"), "--model", tiny, "--exact", "--kv-tokens", "1024", "--tokens", "4"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Who?\n\nWhen?\n/quit\nnever\n")))
    assert main([*words, "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["number"], one["question"]) for one in told] == [(1, "Who?"), (2, "When?")]
    assert main([*words[:1], "gone.txt", *words[2:]]) == 2
    assert "There is no file gone.txt" in capsys.readouterr().err
