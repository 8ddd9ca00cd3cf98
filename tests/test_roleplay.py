"""roleplay: how it ends, on canned talk; its two views on the engine."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kvorum import Budget, Task
from kvorum.errors import BadRequest
from kvorum.harness.dialogue_rules import DONE, DialogueRules, echoes, flake, polite
from kvorum.harness.speaker import scripted
from kvorum.kv import Span
from kvorum.programs.roleplay import Talk, roleplay, solution_of
from scripted_workers import BABBLE, Record, exact, notes, solve, thread

ASK = [
    f"Instruction: count the {thing} in the old garden\nInput: None" for thing in ("roses", "tulips", "oaks", "ferns")
]
SOLVE = [
    f"Solution: there are {n} of them, {why}.\nNext request."
    for n, why in ((3, "by the wall"), (8, "in two beds"), (1, "very old"), (40, "under the oak"))
]


def play(user: list[str], assistant: list[str], **options: Any) -> tuple[str, Talk]:
    ends = DialogueRules(**{key: options.pop(key) for key in ("silent", "flakes", "stale") if key in options})
    talk = Talk("U", "A", ends=ends, **options)
    lines = {"U": iter(user), "A": iter(assistant)}
    return asyncio.run(talk.play(scripted(lambda name, turn: next(lines[name])), "Count.")), talk


def test_done() -> None:
    outcome, talk = play([*ASK[:2], DONE], SOLVE)
    assert outcome == "done"
    assert talk.count == 5
    assert talk.solutions == ["there are 3 of them, by the wall.", "there are 8 of them, in two beds."]


def test_the_end_token_may_lack_its_brackets() -> None:
    assert play([ASK[0], "CAMEL_TASK_DONE"], SOLVE)[0] == "done"


def test_the_end_token_inside_an_instruction_is_not_the_end() -> None:
    outcome, talk = play([f"{ASK[0]}\nI will say {DONE} when we are through.", DONE], SOLVE)
    assert (outcome, talk.count) == ("done", 3)


def test_the_assistants_end_token_is_not_the_end() -> None:
    outcome, _ = play(ASK[:2], [f"{SOLVE[0]} {DONE}", "Instruction: do it yourself"])
    assert outcome == "flipped"


def test_flipped() -> None:
    outcome, talk = play(ASK, [SOLVE[0], "Solution: none.\nInstruction: tell me where they are"])
    assert (outcome, talk.count, len(talk.solutions)) == ("flipped", 4, 1)


@pytest.mark.parametrize(
    ("text", "is_flake"),
    [
        ("I will count them right away.", True),
        ("Solution: Sure! I'll start with the roses and get back to you.\nNext request.", True),
        ("Solution: let me look into it. Okay?", True),
        ("Solution: I will count them: 3 + 4 = 7", False),
        ("Solution: I will use a loop.\n```python\nprint(1)\n```", False),
        ("Solution: I'll list them.\n- rose\n- tulip", False),
        ("Solution: there are three.", False),
        ("I will count. There are three by the wall and four more behind the shed, which makes seven in all.", False),
    ],
)
def test_flakes_are_promises_without_an_act(text: str, is_flake: bool) -> None:
    assert flake(text) is is_flake


def test_flake_ends_it_when_repeated_and_is_no_solution() -> None:
    promises = ["I will do that.", "I will also do this tomorrow."]
    outcome, talk = play(ASK, [SOLVE[0], *promises])
    assert (outcome, talk.count) == ("flake", 6)
    assert len(talk.solutions) == 1
    outcome, _ = play([*ASK[:3], DONE], [promises[0], SOLVE[0], promises[1]])
    assert outcome == "done"  # not in a row


def test_a_politeness_loop_ends() -> None:
    user = [ASK[0], "Thank you so much!", "Thanks again, goodbye!", "Bye!", "Good bye"]
    outcome, talk = play(user, [SOLVE[0], "You're welcome!", "Goodbye, and thanks!", "Bye bye!"], silent=9)
    assert (outcome, talk.count) == ("loop", 6)  # four turns of manners


def test_plain_repetition_ends() -> None:
    outcome, talk = play([ASK[0]] * 9, [SOLVE[0]] * 9)
    assert (outcome, talk.count) == ("loop", 6)


def test_work_that_goes_on_is_no_loop() -> None:
    user = [f"Instruction: work out {n} times {n + 1} and explain step {n}\nInput: {n}" for n in range(30)]
    assistant = [
        f"Solution: that makes {n * n + n}, since {n} rows of {n + 1} give it; done with {n}." for n in range(30)
    ]
    outcome, talk = play(user, assistant, messages=40)
    assert (outcome, talk.count) == ("cap", 40)


def test_two_thanks_in_passing_are_no_loop() -> None:
    outcome, _ = play([ASK[0], f"Thanks! {ASK[1]}", f"Thank you. {ASK[2]}", DONE], SOLVE, stale=2)
    assert outcome == "done"


def test_deviation_is_three_turns_without_an_instruction() -> None:
    chat = [
        "What lovely weather we have today, is it not so?",
        "My aunt keeps bees near the river.",
        "They make dark honey.",
    ]
    replies = ["It is warm indeed in this garden.", "Bees like the linden trees there.", "Honey keeps for many years."]
    outcome, talk = play([ASK[0], *chat], [SOLVE[0], *replies])
    assert (outcome, talk.count) == ("deviation", 7)
    outcome, _ = play([*chat[:2], ASK[0], chat[2], DONE], [*replies, SOLVE[0]])
    assert outcome == "done"  # an instruction resets the count


def test_the_cap_counts_messages_of_both() -> None:
    for cap in (1, 2, 3, 4):
        outcome, talk = play(ASK, SOLVE, messages=cap)
        assert (outcome, talk.count) == ("cap", cap)
    assert play(ASK, SOLVE, messages=1)[1].solutions == []


@pytest.mark.parametrize("words", ["", " \n", "\0", "Instruction", "{" * 500, "é" * 500])
def test_any_words_lead_to_an_outcome(words: str) -> None:
    outcome, talk = play([words] * 40, [words] * 40)
    assert outcome in ("loop", "deviation")
    assert talk.count < 40


def test_echoes_and_manners() -> None:
    assert echoes("Solution: count the roses in the old garden", ASK[0])
    assert not echoes(SOLVE[0], ASK[0])
    assert not echoes("", ASK[0])
    assert polite("Thank you, good bye!")
    assert not polite("Thank you. Instruction: go on")
    assert not polite("Welcome screens need a title, a logo, a short text and one button at the bottom.")


@pytest.mark.parametrize(
    ("text", "solution"),
    [(SOLVE[0], "there are 3 of them, by the wall."), ("just this", "just this"), ("Solution:\nNext request.", "")],
)
def test_solutions(text: str, solution: str) -> None:
    assert solution_of(text) == solution


# -- on the engine ---------------------------------------------------------------------------------------------------

WORDS = {"Alice": [*ASK[:2], DONE], "Bob": ["Solution: \\boxed{3}", "Solution: \\boxed{11}\nNext request."]}


@pytest.mark.parametrize("channel", ["text", "cache"])
def test_two_views_of_one_talk(channel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(monkeypatch)
    result, run = solve(
        roleplay,
        Task("Count.", lambda answer: float(answer == "11")),
        WORDS,
        on=exact(),
        channel=channel,
        answer="boxed",
    )
    assert record.error() < 1e-9
    assert (result.answer, result.score) == ("11", 1.0)
    assert notes(result, "outcome")[0]["outcome"] == "done"
    talk = Talk("Alice", "Bob")
    told = "Count.\nPut the final answer, and nothing else, inside \\boxed{}."
    alice, bob = run.workers
    for worker, rules in ((alice, talk.user_rules(told)), (bob, talk.assistant_rules(told))):
        assert "".join(map(chr, worker.view.ids)) == f"{rules}\n\n{thread(result, run, worker.name)}"
    heard = [
        (item.block.name, "".join(map(chr, item.block.ids[item.lo : item.hi])))
        for item in alice.view.items
        if isinstance(item, Span) and item.block.name == "Bob"
    ]
    assert heard == ([("Bob", words) for words in WORDS["Bob"]] if channel == "cache" else [])


def test_messages_over_the_cache_are_not_encoded_again() -> None:
    text, cache = (solve(roleplay, "Count.", WORDS, channel=channel)[0] for channel in ("text", "cache"))
    heard = sum(map(len, [*ASK[:2], *WORDS["Bob"]]))
    assert text.ledger.prefill - cache.ledger.prefill == heard
    assert text.ledger.decoded == cache.ledger.decoded


@pytest.mark.parametrize("channel", ["text", "cache"])
def test_a_model_that_babbles_ends_in_an_outcome(channel: str) -> None:
    result, _ = solve(roleplay, "Count.", channel=channel, message_tokens=7, sampling=BABBLE)
    note = notes(result, "outcome")[0]
    assert note["outcome"] in ("loop", "deviation")
    assert result.ledger.decoded == 7 * note["messages"]


@pytest.mark.parametrize("ticks", [1, 3, 20, 90])
def test_budgets_hold(ticks: int) -> None:
    result, _ = solve(roleplay, "Count.", WORDS, budget=Budget(ticks=ticks))
    assert result.ledger.ticks <= ticks
    assert notes(result, "outcome")[0]["outcome"] == "stopped"
    assert result.outcome == ("cut" if result.answer else "none")


def test_the_task_may_be_made_specific_first() -> None:
    words = {"Alice": [ASK[0], DONE], "Bob": ["Count the roses at noon.", SOLVE[0]]}
    result, run = solve(roleplay, "Count.", words, specify=True)
    assert result.answer == "there are 3 of them, by the wall."
    rules = "".join(map(chr, run.workers[0].view.ids))
    assert "Count the roses at noon." in rules
    empty, run = solve(roleplay, "Count.", {**words, "Bob": [" ", SOLVE[0]]}, specify=True)
    assert "task:\nCount.\n" in "".join(map(chr, run.workers[1].view.ids))
    assert empty.answer == result.answer


def test_requests_that_cannot_be() -> None:
    with pytest.raises(BadRequest, match="3 workers"):
        solve(roleplay, "Count.", workers=3)
    for name in ("messages", "message_tokens", "silent", "flakes", "stale"):
        options: dict[str, Any] = {name: 0}
        with pytest.raises(BadRequest):
            solve(roleplay, "Count.", **options)
