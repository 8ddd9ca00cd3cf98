"""Growing rollouts that share prefixes: branches over one cache, forked at any token without a copy.

A branch is what one worker writes from a fork point to its end. All its tokens but the last are in the cache; a fork at
token ``at`` sees the first ``at - 1`` of them in place and feeds the last one it keeps, to get its logits.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from kvorum.engine.detokenizer import Detokenizer
from kvorum.engine.row import Cost, Row
from kvorum.engine.text import encode
from kvorum.harness.inner_programs import InnerPlace, answers_inside
from kvorum.harness.tools.approval import call_approved
from kvorum.harness.tools.tool import Tool
from kvorum.jsontypes import Json
from kvorum.kv import View
from kvorum.programs.tree.branch import Branch, RolloutSettings, entropy, looping
from kvorum.runs.program import Program
from kvorum.runs.run import Run
from kvorum.runs.spending import Spent


class Growth:
    """The branches of one run. Draws depend on the seed and the branch's number, not on how many run at once."""

    def __init__(self, run: Run, settings: RolloutSettings) -> None:
        self.run, self.settings = run, settings
        self.at_once = len(run.workers)
        self.named = [worker.name for worker in run.workers]
        self.dice = random.Random(f"tree {run.seed}")
        self.branches: list[Branch] = []
        self.prompt: list[int] = []
        self.prompt_block = run.block("prompt")
        self.edges: Callable[[Branch], Iterable[int]] = lambda branch: branch.steps
        """Where nodes of a branch end, beside its forks and its end: positions of its path, as its method has them."""
        self.loops: Callable[[str], bool] = looping
        """Whether a text goes round in circles, so that its branch ends."""
        self._script = [] if settings.script is None else run.encode(settings.script)
        run.dismiss_workers()

    async def begin(self, ids: Sequence[int]) -> None:
        """Encode the prompt, but for its last token."""
        self.prompt = list(ids)
        await self.run.prefill(View(self.prompt_block), self.prompt[:-1])
        self.prompt_block.seal()

    def root(self, tree: int) -> Branch:
        """A branch that starts behind the prompt."""
        return self._branch(None, tree, len(self.prompt))

    def fork(self, source: Branch, at: int) -> Branch:
        """A branch that keeps the first ``at`` tokens of ``source``'s path."""
        return self._branch(source.owner(at), source.tree, at)

    def _branch(self, parent: Branch | None, tree: int, at: int) -> Branch:
        run, index = self.run, len(self.branches)
        name = self.named[index] if index < len(self.named) else f"Rollout{index + 1}"
        worker = run.add_worker(name)
        before = View(self.prompt_block) if parent is None else parent.worker.view
        worker.view = before.fork(at - 1, run.block(name))
        kept = self.prompt if parent is None else parent.ids[: at - parent.start]
        worker.feed(kept[-1:])
        words = Detokenizer(run.engine.tokenizer, kept if parent else ())
        branch = Branch(index, tree, parent, at, worker, words)
        worker.allow = self._watch(branch)
        if parent is not None:
            ids, first = branch.path(lambda one: one.ids), len(self.prompt)
            marks = [max(branch.marks(name), default=first) - first for name in ("steps", "calls")]
            branch.text = run.read(ids)
            branch.begun, branch.heard = (len(run.read(ids[:mark])) for mark in marks)
        self.branches.append(branch)
        return branch

    def _watch(self, branch: Branch) -> Callable[[Tensor], Tensor | None]:
        def allow(logits: Tensor) -> Tensor | None:
            branch.entropies.append(entropy(logits))
            if self.settings.script is None:
                return None
            mask = torch.zeros(len(logits), dtype=torch.bool)
            at = branch.end - len(self.prompt)
            mask[self._script[at : at + 1] or sorted(self.run.ends)] = True
            return mask

        return allow

    async def advance(self, branches: Sequence[Branch], stop: Callable[[Branch], bool] | None = None) -> None:
        """Let branches write, as many at once as the run has workers, until each is finished or ``stop`` says so.

        ``stop`` is asked after each token. A branch that is told to stop goes on from there in the next call. What is
        not finished when the budget is spent gets the finish "spent".
        """
        waiting = [branch for branch in branches if not branch.finish]
        active: list[Branch] = []
        while (waiting or active) and not self.run.spent:
            while waiting and len(active) < self.at_once:
                active.append(waiting.pop(0))
            try:
                await self.run.tick([branch.worker for branch in active])
            except Spent:
                break
            calls = [(branch, call) for branch in active if (call := self._after(branch))]
            if calls:
                await self._use_tools(calls)
            active = [branch for branch in active if not branch.finish and not (stop is not None and stop(branch))]
        for branch in [*active, *waiting]:
            branch.finish = branch.finish or "spent"

    def _after(self, branch: Branch) -> tuple[Tool, str] | None:
        """Take in a branch's new token. Returns the tool and its argument where it completes a call."""
        token, settings = branch.worker.ids[-1], self.settings
        branch.ids.append(token)
        branch.sampled.append(True)
        branch.logprobs.append(branch.worker.logprobs[-1])
        branch.text += branch.words.step(token)
        if token in self.run.ends:
            branch.finish = "end"
        elif branch.end - len(self.prompt) >= settings.tokens:
            branch.finish = "length"
        elif self.loops(branch.text):
            branch.finish = "loop"
        open_step = branch.text[branch.begun :]
        if settings.step and settings.step in open_step and not branch.finish and open_step.strip():
            branch.steps.append(branch.end)
            branch.begun = len(branch.text)
        called = not branch.finish and len(branch.marks("calls")) < settings.turns
        for tool in settings.tools if called else ():
            opening, closing = f"<{tool.name}>", f"</{tool.name}>"
            at = branch.text.rfind(opening, branch.heard)
            if at >= 0 and branch.text.endswith(closing):
                return tool, branch.text[at + len(opening) : -len(closing)]
        return None

    async def _use_tools(self, calls: Sequence[tuple[Branch, tuple[Tool, str]]]) -> None:
        """Call the tools, those that want it behind a person's word, append their results, and bring all but the last
        token of them into the cache at once."""
        rows, costs = [], []
        for branch, (tool, argument) in calls:
            worker, settings = branch.worker, self.settings
            parameters = _parameters(tool, argument)
            outcome = await call_approved(
                self.run, [tool], tool.name, parameters, seconds=settings.seconds, chars=settings.chars
            )
            self.run.note("tool", worker=worker.name, tool=tool.name, status=outcome.status)
            text = f"\n<result>{outcome.text}</result>\n\n"
            ids = encode(self.run.engine.tokenizer, text, split_special=True)  # no text of a tool is a special token
            rows.append(Row(worker.view, ids=[*worker.pending, *ids[:-1]]))
            costs.append(Cost(worker.picked))
            worker.pending, worker.picked = ids[-1:], 0
            branch.ids += ids
            branch.sampled += [False] * len(ids)
            branch.logprobs += [0.0] * len(ids)
            branch.entropies += [0.0] * len(ids)
            branch.text += text
            branch.begun = branch.heard = len(branch.text)
            branch.steps.append(branch.end)
            branch.calls.append(branch.end)
        await self.run.forward(rows, costs)

    async def go_on(self, program: Program, params: Mapping[str, Json]) -> None:
        """Let ``program`` work behind every leaf, behind as many at once as write at once, in the same ticks.

        It may have ``workers`` among its parameters. Leaves that the budget does not reach keep what they have.
        """
        leaves = [leaf for leaf in self.branches if leaf.finish and leaf.finish != "spent" and not leaf.auxiliary]
        for start in range(0, len(leaves), self.at_once):
            group = leaves[start : start + self.at_once]
            if self.run.spent:
                return
            rows = [Row(leaf.worker.view, ids=leaf.worker.pending) for leaf in group]  # a leaf's last token
            await self.run.forward(rows, [Cost(leaf.worker.picked) for leaf in group])
            for leaf in group:
                leaf.worker.pending, leaf.worker.picked = [], 0
            places = [InnerPlace(leaf.worker.name, leaf.worker.view) for leaf in group]
            answers = await answers_inside(self.run, program, params, places)
            for leaf, answer in zip(group, answers, strict=True):
                leaf.answer = answer


def _parameters(tool: Tool, argument: str) -> str:
    """What a chain wrote between a tool's marks, as the JSON object of its first parameter."""
    name, shape = next(iter(tool.properties.items()), ("", {"type": "string"}))
    try:
        value = argument if shape.get("type") == "string" else json.loads(argument)
    except ValueError:
        value = argument
    return json.dumps({name: value})
