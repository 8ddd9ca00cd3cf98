"""Crew files: what is wrong in one is told with its line and what was meant; what ships can be read."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvorum.cli.main import main
from kvorum.errors import BadRequest, UnknownName
from kvorum.harness.crew_files.reading import SHIPPED, read_crew, shipped

FILE = """\
about: Two talk.
workers:
  Ann: You ask.
  Ben:
    role: You answer.
steps:
  ask:
    who: Ann
    ask: Ask something.
    says:
      question: text up to 80
    then: answer
  answer:
    who: [Ben]
    ask: Answer it.
    says:
      sure: yes or no
      answer: text
    vote: sure
    then:
      "true": end
      otherwise: ask
most: 4
answer: answer.answer
"""


def test_a_file_says_what_it_says() -> None:
    found = read_crew(FILE)
    assert list(found.workers) == ["Ann", "Ben"]
    assert found.steps["ask"].then == {"said": "answer"}
    assert found.steps["answer"].then == dict.fromkeys(("false", "tied", "short", "absent", "silent"), "ask")
    assert (found.protocol.start, found.protocol.most, found.channel) == ("ask", 4, "cache")
    assert found.answer == ("answer", "answer", "newest")
    assert found.steps["answer"].form == '{"sure": true or false, "answer": "a text of at most 400 characters"}'


@pytest.mark.parametrize("name", SHIPPED)
def test_those_that_ship_can_be_read_and_explain_themselves(name: str) -> None:
    assert read_crew(name) == read_crew(shipped(name))
    assert shipped(name).startswith("# ")
    assert len(shipped(name).splitlines()) < 50


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("most: 4", "mots: 4", 23, "no key 'mots'; did you mean most"),
        ("    who: Ann", "    woh: Ann", 8, "steps.ask has no key 'woh'; did you mean who"),
        ("    who: Ann", "    who: Anna", 8, "no worker 'Anna'; did you mean Ann"),
        ("    who: [Ben]", "    who: [Ben, Ben]", 14, "each worker once"),
        ("    ask: Ask something.\n", "", 7, "steps.ask lacks ask"),
        ("text up to 80", "txt", 11, "no kind of field 'txt'; did you mean text"),
        ("    then: answer", "    then: anwser", 7, "no step 'anwser'; did you mean answer"),
        ('"true": end', "yes: end", 21, "no key 'yes'"),
        ("    vote: sure", "    vote: answer", 19, "answer has no choices to vote on"),
        ("most: 4", "most: 0", 23, "a whole number from 1 to 200, not '0'"),
        ("answer: answer.answer", "answer: answer.anser", 24, "no field 'anser'; did you mean answer"),
        ("answer: answer.answer", "answer: answer", 24, "a field of a step"),
        ("answer: answer.answer", "answer: {from: answer.sure, as: median}", 24, "has no median"),
        ("  Ben:\n    role", "  Ann:\n    role", 4, "'Ann' stands twice"),
        ("about: Two talk.", "about: [Two", 2, "no YAML"),
        ("about: Two talk.", "about: {a: b}", 1, "about is a text"),
        ("    then: answer\n", "", 6, "The step answer is never come to"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(old: str, new: str, line: int, words: str) -> None:
    assert old in FILE
    with pytest.raises(BadRequest) as caught:
        read_crew(FILE.replace(old, new, 1))
    assert words in str(caught.value), caught.value
    assert str(caught.value).startswith(f"line {line}: "), caught.value


@given(st.text(max_size=200) | st.integers(0, len(FILE)).map(lambda at: FILE[:at] + "\n" + FILE[at + 3 :]))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(BadRequest, UnknownName):
        assert read_crew(text).workers


def test_a_file_that_repeats_itself_ends_at_a_limit() -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{at}: &a{at} [*a{at - 1}, *a{at - 1}, *a{at - 1}]" for at in range(1, 9))]
    with pytest.raises(BadRequest, match="more parts"):
        read_crew("\n".join(lines))
    with pytest.raises(BadRequest, match="characters"):
        read_crew("x\n" * 20_000)
    with pytest.raises(BadRequest, match="32 deep"):
        read_crew("a:\n " + "[" * 19_000)


def test_the_command_checks_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "talk.yaml"
    path.write_text(FILE)
    assert main(["crew", str(path), "--check"]) == 0
    out = capsys.readouterr().out
    assert "ask: Ann say" in out
    assert "at most 4 steps; answer: answer.answer, newest" in out
    path.write_text(FILE.replace("most: 4", "mots: 4"))
    assert main(["crew", str(path), "--check"]) == 2
    assert "talk.yaml, line 23:" in capsys.readouterr().err
    assert main(["crew", "reviw", "x"]) == 2
    assert "review, estimate, notes" in capsys.readouterr().err
