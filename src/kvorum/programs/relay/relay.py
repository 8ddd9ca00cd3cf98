"""LatentMAS: workers hand on their thoughts as cache, not as words (arXiv 2511.20639).

A program over views: what a worker's prompt and latent steps left in its block stands, as it is, in the views of those
behind it. ``docs/programs/relay.md`` lists every deliberate difference from the paper and from its code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from kvorum.engine.row import Cost, Row
from kvorum.errors import BadRequest
from kvorum.harness.answers import Answer, FinalTokens, closing, kind_of
from kvorum.harness.chain_of_thought import share, think_and_answer, write
from kvorum.kv import Block, View
from kvorum.programs.relay import prompts
from kvorum.programs.relay.alignment import Way, alignment
from kvorum.runs.annotations import NonNegativeInt, PositiveInt
from kvorum.runs.program import program
from kvorum.runs.run import Run
from kvorum.runs.worker import Worker


@program(
    "relay",
    "workers hand on latent thoughts as cache, in a chain or from experts to a summariser",
    workers=4,
    private=True,
    exchange="chain",
    channels={
        "latent": {"think": "latent", "handover": "cache"},
        "cache": {"think": "text", "handover": "cache"},
        "text": {"think": "text", "handover": "text"},
        "none": {"arm": "none"},
        "mismatched": {"think": "latent", "arm": "mismatched"},
        "zeroed": {"think": "latent", "arm": "zeroed"},
        "random": {"think": "latent", "arm": "random"},
    },
    real="latent",
)
async def relay(
    run: Run,
    *,
    form: Literal["sequential", "hierarchical"] = "sequential",
    latent_steps: NonNegativeInt = 10,
    align: Way = "auto",
    think: Literal["latent", "text"] = "latent",
    handover: Literal["cache", "text", "both"] = "cache",
    text_tokens: PositiveInt = 128,
    arm: Literal["real", "mismatched", "zeroed", "random", "none"] = "real",
    other: str = "",
    private: Sequence[str] = (),
    other_private: Sequence[str] = (),
    answer: Answer = "boxed",
    final_tokens: FinalTokens = None,
) -> str | None:
    """All workers but the last think; the last one gets what they hand over, and answers in text.

    Args:
        form: A chain in which each gets what those before it left, or experts side by side and a summariser.
        latent_steps: Latent steps of each worker; 0 hands over its encoded prompt alone.
        align: How a hidden state becomes an embedding: scaled, by ridge regression, or as a mean of embeddings.
        think: Workers think in latent steps or in text.
        handover: What is handed over: the blocks, their words in the next prompt, or both.
        text_tokens: The most tokens of a worker that thinks or hands over in text.
        arm: What the last worker gets: the real blocks, those of another task, zero or random ones, or none, so that
            the others do not work.
        other: The task that the others work on where blocks are mismatched.
        private: What each worker alone is told, in order; the task's private parts where left out.
        other_private: What they are told in its stead where they work on the other task.
    """
    if arm == "mismatched" and not other.strip():
        raise BadRequest("arm='mismatched' needs other='...': the question whose blocks are handed over.")
    if arm in ("zeroed", "random") and handover == "text":
        raise BadRequest(f"arm={arm!r} is of keys and values; handover='text' hands none over.")
    if (most := max(len(private), len(other_private))) > len(run.workers):
        raise BadRequest(f"There are {most} private texts for {len(run.workers)} workers.")
    private = private or [run.task.private.get(worker.name, "") for worker in run.workers]
    kind = kind_of(run, answer)
    team = Relay(run, form, run.task.prompt, private)
    if arm == "mismatched":
        team = Relay(run, form, other, other_private)
    last = closing(run, kind, final_tokens)
    last.prefill += len(run.encode(run.task.prompt)) + (text_tokens * len(run.workers) if handover != "cache" else 0)
    with run.work(last):
        thinkers = run.workers[:-1] if arm != "none" else []
        for stage in filter(None, [thinkers] if form == "hierarchical" else [[worker] for worker in thinkers]):
            if not run.workers[-1].active:  # somebody wants the answer now
                break
            await team.work(stage, latent_steps if think == "latent" else 0, align, think, handover, text_tokens)
    if arm in ("zeroed", "random"):
        team.imitate(arm)
    judge, hint = run.workers[-1], "".join(private[len(run.workers) - 1 :])
    prompt = run.chat(("user", prompts.answerer(form, run.task.prompt, hint, team.heard(judge.name), kind.request)))
    judge.view = View(*team.reach(judge.name, team.handed), run.block(judge.name))
    judge.pending[:0] = prompt
    return await think_and_answer(run, judge, kind, final_tokens)


class Relay:
    """What has been handed over so far, and how a stage of workers adds to it."""

    def __init__(self, run: Run, form: str, question: str, private: Sequence[str]) -> None:
        self.run, self.question = run, question
        self.private = [*private, *[""] * (len(run.workers) - len(private))]
        self.roles = prompts.roles(form, len(run.workers))
        self.handed: list[Block] = []
        """Blocks that stand in the view of whoever comes next."""
        self.said: list[tuple[str, str, str]] = []
        """(worker, role, text) for the next prompt."""
        run.note("roles", **{worker.name: role for worker, role in zip(run.workers, self.roles, strict=True)})

    async def work(self, stage: Sequence[Worker], steps: int, align: Way, think: str, handover: str, most: int) -> None:
        """Let the workers of a stage think in the same ticks; their prompts' common beginning is encoded once."""
        run = self.run
        asked: list[list[int]] = []
        for worker in stage:
            role, private, said = self.roles[worker.index], self.private[worker.index], self.heard(worker.name)
            asked.append(run.chat(("user", prompts.thinker(role, self.question, private, said))))
        shared = self.handed + (await share(run, "question", asked, self.handed) if len(stage) > 1 else [])
        for worker in stage:
            worker.view = View(*self.reach(worker.name, shared), run.block(worker.name))
            run.credit(worker.own, worker.name)
        if think == "latent":
            await self._think(stage, asked, steps, align)
            asked = [run.encode(prompts.BRIDGE)] * len(stage)
        if think == "text" or handover != "cache":
            for worker, ids in zip(stage, asked, strict=True):
                worker.feed(ids)
            await write(run, stage, most)
            left = [worker for worker in stage if worker.pending and worker.ids]
            if handover != "text" and left and not run.spent:  # the last token too is for later readers
                await run.forward([worker.row() for worker in left], [Cost(worker.picked) for worker in left])
        if handover != "text":
            self.handed = [*shared, *(worker.own.seal() for worker in stage if len(worker.own))]
        if handover != "cache":
            self.said += [(w.name, self.roles[w.index], w.text) for w in stage if w.text.strip()]

    def reach(self, reader: str, blocks: Sequence[Block]) -> list[Block]:
        """Those of the blocks that get to the reader. Each counts as number 0."""
        return [block for block in blocks if self.run.injections.link(block.name, reader, 0).lag is not None]

    def heard(self, reader: str) -> list[tuple[str, str]]:
        """(role, text) of what was handed over in words and gets to the reader."""
        return [
            (role, text) for name, role, text in self.said if self.run.injections.link(name, reader, 0).lag is not None
        ]

    async def _think(self, stage: Sequence[Worker], asked: list[list[int]], steps: int, align: Way) -> None:
        """Encode the prompts and feed each worker's last hidden state back ``steps`` times, as the budget allows."""
        run, step = self.run, 0
        if run.spent:
            return
        embed = alignment(run.engine, align)
        rows = [Row(worker.view, ids=ids) for worker, ids in zip(stage, asked, strict=True)]
        while True:
            reply = await run.forward(rows, [Cost(0)] * len(rows), hidden=True)
            if step == steps or run.spent:
                break
            thoughts = embed(reply.output).split(1)
            rows = [Row(worker.view, embeds=thought) for worker, thought in zip(stage, thoughts, strict=True)]
            step += 1
        assert reply.output.hidden is not None
        sizes = torch.linalg.vector_norm(reply.output.hidden.cpu().double(), dim=-1).tolist()
        run.note("latent", workers=[w.name for w in stage], steps=step, sizes=[round(size, 3) for size in sizes])

    def imitate(self, kind: str) -> None:
        """Replace everything handed over by blocks of the same lengths that hold nothing of it."""
        run = self.run
        self.handed = [run.imitate(block, kind, seed=run.seed + at) for at, block in enumerate(self.handed)]
        run.note("imitate", what=kind, tokens=sum(map(len, self.handed)))
