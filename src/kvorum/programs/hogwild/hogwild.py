"""Hogwild! Inference: workers that see each other's words as they are written (arXiv 2504.06261).

A program over views: finished steps are appended to a shared history; each worker sees the prompt and history, the
others' unfinished steps, and last its own. ``docs/hogwild.md`` lists every deliberate difference from the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from typing import Literal, get_args

from kvorum.errors import BadRequest
from kvorum.harness.answers import Answer, AnswerKind, FinalTokens, closing, extract, force, kind_of, read
from kvorum.kv import View
from kvorum.programs.hogwild import prompts
from kvorum.programs.hogwild.control_arms import Apart
from kvorum.programs.hogwild.no_copies import NoCopies
from kvorum.programs.hogwild.team import Team, TeamRules
from kvorum.runs.annotations import NonNegativeInt
from kvorum.runs.loops import OnLoop
from kvorum.runs.program import Task, program
from kvorum.runs.run import Run
from kvorum.runs.spending import Spent

TeamChannel = Literal["cache", "text", "none", "mismatched", "zeroed", "random"]
CHANNELS = get_args(TeamChannel)


@program(
    "hogwild",
    "workers see each other's thoughts, token by token, over one cache",
    workers=4,
    private=True,
    joins=True,
    cache_per_token=2,  # a finished step is copied to the history
    exchange="shared",
    channels={name: {"channel": name} for name in CHANNELS},
    real="cache",
    former={"rules": "published"},
)
async def hogwild(
    run: Run,
    *,
    layout: Literal["combined", "interleaved", "contiguous"] = "combined",
    answer: Answer = "boxed",
    check_every: NonNegativeInt = 1024,
    openings: bool = True,
    ends: Literal["sentence", "line"] = "sentence",
    headers: Literal["context", "alone"] = "context",
    suppress_end: bool = False,
    suppress_markup: bool = True,
    rules: Literal["short", "published"] = "short",
    memory: NonNegativeInt | None = None,
    forget: Literal["splice", "gap"] = "splice",
    channel: TeamChannel = "cache",
    other: str = "",
    other_private: Mapping[str, str] | None = None,
    final: Literal["cache", "reencode"] = "cache",
    final_tokens: FinalTokens = None,
    loops: OnLoop = "end",
    no_copied_ngram: NonNegativeInt = 0,
) -> str | None:
    """Let the team think together until a finished step holds an answer, everyone has left, or the budget is spent.

    The others see all steps of a worker that forgets its own, and so does who answers by force. See ``controls`` for
    the channels.

    Args:
        layout: What a worker sees: history, others' unfinished steps and its own; history and its own; or, without a
            history, the others' whole texts and its own.
        check_every: After so many tokens of all, the next to begin a step is asked if its work is redundant; 0: never.
        openings: Everyone begins with a few given words.
        ends: A step ends at an empty line behind a sentence, or at any empty line.
        headers: Headings are encoded in their context, or alone as the paper does.
        suppress_end: End tokens are banned, so that nobody leaves by ending its text.
        suppress_markup: Under the published rules tokens that begin with ##, and but for code ** and <, are banned,
            since the team's own marks do; under the short ones nothing is.
        rules: What workers are told: the problem, with the others' words as notes behind it; or as in the paper, with
            sections, names and labels.
        memory: How many of its own finished steps a worker goes on seeing; none: all of them.
        forget: What is left where a forgotten step stood: nothing, or its positions.
        channel: How workers see each other: over the cache or, as controls, as text encoded anew, not at all, another
            problem's team in their place, or keys and values that are zero or random.
        other: The problem of the team that is seen instead, where the channel is mismatched.
        other_private: What that team's workers are told alone, by their names.
        final: An answer is forced from the shared cache, or from the text encoded anew as the paper does.
        no_copied_ngram: Nobody writes so many tokens in a row that another has written, and who stands at the same
            words waits its turn; 0: everybody may. 3 suits lists of things that must differ.
    """
    if memory is not None and layout == "contiguous":
        raise BadRequest("layout='contiguous' has no finished steps to forget; leave memory out.")
    if channel != "cache" and (memory is not None or layout == "contiguous" or final != "cache"):
        raise BadRequest(f"channel={channel!r} is a control of the plain team: no memory, contiguous or reencode.")
    if channel == "mismatched" and not other.strip():
        raise BadRequest("channel='mismatched' needs other='...': the problem of the team that is seen instead.")
    if no_copied_ngram == 1:
        raise BadRequest("no_copied_ngram=1 would leave each word to who writes it first; give 0 or at least 2.")
    run.loops = loops
    kind = kind_of(run, answer)
    wording, banned = prompts.WORDINGS[rules], run.ends if suppress_end else frozenset[int]()
    if suppress_markup and wording.label:
        banned |= prompts.markup(run.vocabulary(), code=answer == "code") - run.ends
    team_rules = TeamRules(layout, check_every, openings, ends == "sentence", banned, memory, forget, wording)
    team = Team(run, team_rules)
    if channel != "cache":
        team = Apart(run, team_rules, channel=channel, other=Task(other, private=other_private or {}))
    with run.setting_up():
        await team.begin(kind.request, run.task, headers)
    last = closing(run, kind, final_tokens)
    last.ticks += team.settling
    with run.work(last):
        copies = NoCopies(no_copied_ngram, prompts.words(run.vocabulary())) if no_copied_ngram else None
        while not run.spent:
            if await team.read_commands() or not (active := team.active):
                break
            with nullcontext(active) if copies is None else copies.writing(active) as writers:
                await team.tick(writers)
            for worker in writers:
                step = team.after(worker)
                found = extract(step, kind) if step else None
                if found is None and not (worker.active or kind.demand):  # what it wrote until it ended its text
                    found = read(worker.text, kind)
                if found:
                    run.note("found", worker=worker.name)
                    return found
    if not kind.demand:
        return written(run, kind)
    with suppress(Spent):
        await team.settle()
    if memory is not None:
        team.recall()
    finisher = (team.active or run.workers)[-1]
    if not team.active and layout != "contiguous":  # all that was written is in the history
        heads = team.heads[-1:] if wording.turns else []
        finisher.view = View(*team.before(finisher.name), *heads, run.block("final"))
    if final == "reencode":
        finisher.pending, finisher.picked = team.prompt + run.encode(team.text()), 0
        finisher.view = View(run.block("final"))
    return await force(run, finisher, kind, tokens=final_tokens)


def written(run: Run, kind: AnswerKind) -> str | None:
    """The answer where nobody has given one and nobody is asked: what the longest text has, cut."""
    run.outcome = "cut"
    for worker in sorted(run.workers, key=lambda worker: -len(worker.ids)):
        if found := read(worker.text, kind):
            run.note("found", worker=worker.name)
            return found
    return None
