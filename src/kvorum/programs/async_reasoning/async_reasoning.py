"""AsyncReasoning: a thinker and a writer over one cache, so that the answer begins while the thinking goes on.

Yandex Research, arXiv 2512.10931 and its code. The two run at once; in between the model is asked whether the thoughts
suffice for the next paragraph of the answer, and the writer waits until they do.
"""

from __future__ import annotations

from typing import Annotated, Literal

from kvorum.engine.budget import Ledger
from kvorum.harness.answers import Answer, FinalTokens, closing, force, kind_of, read
from kvorum.harness.chain_of_thought import own_answer
from kvorum.harness.shared_text import quoted_ids, turn_ids
from kvorum.jsontypes import Json
from kvorum.programs.async_reasoning.prompts import Form, wording
from kvorum.programs.async_reasoning.streams import Streams
from kvorum.runs.annotations import Help
from kvorum.runs.program import program
from kvorum.runs.run import Run

Layout = Literal["one_way", "mutual"]
Thoughts = Literal["cache", "reencode", "none"]
Order = Literal["together", "then"]
CHANNELS: dict[str, dict[str, Json]] = {
    "cache": {},
    "mutual": {"layout": "mutual"},
    "reencode": {"thoughts": "reencode"},
    "none": {"thoughts": "none"},
    "then": {"order": "then"},
}
"""What a study compares: both at once, as published in two layouts; a writer that sees the thoughts encoded again, or
none; and thinking, then writing."""


@program(
    "async_reasoning",
    "a thinker and a writer at once: the answer begins while the thinking goes on",
    workers=2,
    least_workers=2,
    most_workers=2,
    names=lambda workers, **params: ("Thinker", "Writer"),
    speaker=1,
    channels=CHANNELS,
    real="cache",
)
async def async_reasoning(
    run: Run,
    *,
    layout: Annotated[Layout, Help("Whether the thinker sees the answer too (mutual), or not.")] = "one_way",
    every: Annotated[int, Help("After so many ticks it is asked whether to write on.", low=1)] = 20,
    thoughts: Annotated[
        Thoughts, Help("What the writer sees of the thoughts: them, encoded again, or nothing.")
    ] = "cache",
    order: Annotated[Order, Help("Both at once, or thinking and then writing.")] = "together",
    think: Annotated[int | None, Help("The most tokens of thoughts; none: no limit.", low=1)] = None,
    form: Annotated[Form, Help("With the model's think part, or notes; auto: as the model has one or not.")] = "auto",
    answer: Answer = "text",
    final_tokens: FinalTokens = None,
) -> str | None:
    """The first worker thinks, the second writes the answer, in the same ticks, over one cache.

    It begins with the thinker alone. After every so many ticks, and where a paragraph of thoughts ends, the model is
    asked whether they suffice for the next paragraph: at yes both go on, at no the thinker alone. Where the writer ends
    a paragraph it waits for the next yes. When the thoughts end, the writer goes on alone. What is said while they work
    is put behind the problem and told the thinker; the writer is told at its next paragraph that there is more.
    """
    kind = kind_of(run, answer)
    thinker, writer = run.workers
    before, _ = turn_ids(run)
    reply = run.state.prompt("")["around"][1]
    words = wording(run, form, reply)
    asked = f"\n\n{kind.request}" if kind.request else ""
    streams = Streams(run, thinker, writer, words, mutual=layout == "mutual", thoughts=thoughts)
    most = final_tokens or 64
    own = Ledger(ticks=most, decoded=most, prefill=most) if not kind.demand else Ledger()
    with run.work(closing(run, kind, final_tokens) if kind.demand else own):
        await streams.begin([*before, *quoted_ids(run, run.task.prompt + asked)], reply)
        await streams.write(every=every, then=order == "then", think=think)
    if found := own_answer(run, writer, kind):
        return found
    if not kind.demand and not writer.text.strip() and streams.begun and not streams.ended:
        run.force()  # the budget ended before the first word
        await streams.last_words(most)
        return read(writer.text, kind)
    return await force(run, writer, kind, tokens=final_tokens) if streams.begun else None
