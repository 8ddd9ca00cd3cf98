"""Hogwild! Inference: workers that see each other's words as they are written (arXiv 2504.06261).

A program over views: finished steps are appended to a shared history; each worker sees the prompt and history, the
others' unfinished steps, and last its own. ``docs/hogwild.md`` lists every deliberate difference from the paper.
"""

from __future__ import annotations

from collections.abc import Mapping

from kvorum.errors import BadRequest, UnknownName
from kvorum.harness.answers import extract, force, kind_of
from kvorum.kv import View
from kvorum.programs.hogwild import text as words
from kvorum.programs.hogwild.controls import CHANNELS, Apart
from kvorum.programs.hogwild.team import Team
from kvorum.runs.run import Run, Task, program

LAYOUTS = ("combined", "interleaved", "contiguous")


@program(
    "hogwild", "workers see each other's thoughts, token by token, over one cache", workers=4, private=True, joins=True
)
async def hogwild(
    run: Run,
    *,
    layout: str = "combined",
    answer: str = "boxed",
    check_every: int = 1024,
    openings: bool = True,
    ends: str = "sentence",
    headers: str = "context",
    suppress_end: bool = False,
    suppress_markup: bool = True,
    memory: int | None = None,
    forget: str = "splice",
    channel: str = "cache",
    other: str = "",
    other_private: Mapping[str, str] | None = None,
    final: str = "cache",
    final_tokens: int | None = None,
) -> str | None:
    """Let the team think together until a finished step holds an answer, everyone has left, or the budget is spent.

    Args:
        layout: "combined" (history, others' unfinished steps, own step), "interleaved" (history, own step) or
            "contiguous" (prompt, others' whole texts, own text; no history).
        answer: the kind of answer. check_every: after so many tokens of all workers, the next one to begin a step is
            asked whether its work is redundant (0: never). openings: begin with a few given words. ends: a step ends at
            an empty line behind a "sentence", or at any empty "line".
        headers: headings encoded in "context" or "alone", as the paper does. suppress_end: ban end tokens, so that
            nobody leaves; otherwise a worker that ends its text has left. suppress_markup: ban tokens that begin a
            heading or, but for code, bold text or "<", so that nobody writes the team's headings, labels and marks.
        memory: how many of its own finished steps a worker goes on seeing; the others see all of them, and so does who
            answers by force. None: all. forget: what "splice" or "gap" leaves where a forgotten step stood.
        channel: how workers see each other: over the "cache"; or, as controls, "text" (everybody encodes the others'
            words anew), "none" (not at all), "mismatched" (a team on ``other``, with ``other_private`` parts, in place
            of the others), "zeroed" or "random" (keys and values that hold nothing). See ``hogwild_controls``.
        final: force the answer from the shared "cache" or "reencode" the text, as the paper does.
        final_tokens: the most tokens of a forced answer.
    """
    for name, value, known in (
        ("layout", layout, LAYOUTS),
        ("ends", ends, ("sentence", "line")),
        ("headers", headers, ("context", "alone")),
        ("channel", channel, CHANNELS),
        ("forget", forget, ("splice", "gap")),
        ("final", final, ("cache", "reencode")),
    ):
        if value not in known:
            raise UnknownName(f"There is no {name} {value!r}; there are: {', '.join(known)}.")
    if check_every < 0:
        raise BadRequest(f"check_every={check_every} must be a number of tokens, or 0 for never.")
    if memory is not None and (memory < 0 or layout == "contiguous"):
        raise BadRequest("memory must be at least 0, and layout='contiguous' has no finished steps to forget.")
    if channel != "cache" and (memory is not None or layout == "contiguous" or final != "cache"):
        raise BadRequest(f"channel={channel!r} is a control of the plain team: no memory, contiguous or reencode.")
    if channel == "mismatched" and not other.strip():
        raise BadRequest("channel='mismatched' needs other='...': the problem of the team that is seen instead.")
    kind = kind_of(answer)
    banned = run.ends if suppress_end else frozenset[int]()
    if suppress_markup:
        banned |= words.markup(run.vocabulary(), code=answer == "code") - run.ends
    settings = (layout, check_every, openings, ends == "sentence", banned)
    team = Team(run, *settings, memory, forget)
    if channel != "cache":
        team = Apart(run, *settings, channel=channel, other=Task(other, private=other_private or {}))
    with run.setting_up():
        await team.begin(words.rules([w.name for w in run.workers], kind.request), run.task, headers)
    while not run.spent:
        if await team.read_commands() or not (active := team.active):
            break
        await team.tick(active)
        for worker in active:
            if (step := team.after(worker, active)) and (found := extract(step, kind)):
                run.note("found", worker=worker.name)
                return found
    await team.settle()
    if memory is not None:
        team.recall()
    finisher = (team.active or run.workers)[-1]
    if not team.active and layout != "contiguous":  # all that was written is in the history
        finisher.view = View(*team.before(finisher.name), run.block("final"))
    if final == "cache":
        return await force(run, finisher, kind, tokens=final_tokens)
    text = team.text()
    finisher.view = View(run.block("final"))
    return await force(run, finisher, kind, tokens=final_tokens, first=team.prompt + run.encode(text))
