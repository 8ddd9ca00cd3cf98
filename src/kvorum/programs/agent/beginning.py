"""How an agent begins: what it is told, in the cache but for its last token.

    begin               [ prompt: rules, tools, task ]
    begin_behind_texts  [ rules, tools ][ skills ][ memory ][ texts of skills in use ][ task ]

In the second form every text is a block that has read nothing but the rules, so that it is encoded once, may be on
disk, and comes and goes without a change of the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvorum.engine.text import encode as to_ids
from kvorum.harness.known_texts import KnownTexts
from kvorum.harness.shared_text import encode, load_or_encode, quoted_ids
from kvorum.harness.text_blocks import TextBlocks
from kvorum.harness.tools.call_form import CallForm
from kvorum.harness.tools.tool import Tool
from kvorum.jsontypes import Json
from kvorum.kv import View
from kvorum.programs.agent.context import Context
from kvorum.runs.run import Run


@dataclass(slots=True)
class Beginning:
    """``view``: what the worker sees, and its own block. ``pending``: ids that it is still to be fed. ``texts``: where
    further texts are encoded, which then stand at position ``at``. ``on``: how many skills do."""

    view: View
    pending: Sequence[int]
    texts: TextBlocks | None = None
    at: int = 0
    on: int = 0

    async def switch_on(self, seen: Context, known: KnownTexts, name: str) -> None:
        """Let a skill's body stand before the task, behind those that do already."""
        assert self.texts is not None
        body = await known.body(self.texts, name)
        seen.put(body, self.at)
        self.at, self.on = self.at + len(body), self.on + 1


async def begin(run: Run, form: CallForm, rules: str, bench: Sequence[Tool], known: KnownTexts) -> Beginning:
    """With nothing but rules, tools and the task."""
    talk = form.conversation([*_system(rules), {"role": "user", "content": run.task.prompt}], bench)
    ids = run.state.prompt(talk.messages, **talk.variables)["ids"]
    block = run.block("prompt")
    await encode(run, View(block), ids[:-1])
    return Beginning(View(block.seal(), run.block(run.workers[0].name)), ids[-1:])


async def begin_behind_texts(
    run: Run, form: CallForm, rules: str, bench: Sequence[Tool], known: KnownTexts
) -> Beginning:
    """With what is known standing between the rules and the task."""
    told: list[Json] = [dict(tool.told) for tool in bench]
    before, behind = run.state.pieces(
        ["opening", rules, told],
        lambda moment, switches: form.opening(_system(rules), bench, moment=moment, switches=switches),
    )
    plain = not getattr(run.engine.tokenizer, "chat_template", None)
    opening, _ = await load_or_encode(run, (), to_ids(run.engine.tokenizer, before, special=plain), "prompt")
    texts = TextBlocks(run, opening)
    bodies = [await known.body(texts, name) for name in known.on]
    before_task = View(opening, *await known.blocks(texts), *bodies)
    view = before_task.then(run.block(run.workers[0].name))
    ids = [*quoted_ids(run, run.task.prompt), *run.encode(behind)]
    await encode(run, view, ids[:-1])
    return Beginning(view, ids[-1:], texts, len(before_task), len(bodies))


def _system(rules: str) -> list[Mapping[str, Json]]:
    return [{"role": "system", "content": rules}] if rules else []
