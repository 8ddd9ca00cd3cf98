"""Calls of tools in the form of the server's model: found once, and their grammars kept."""

from __future__ import annotations

import json
from functools import cached_property, lru_cache

from kvorum.engine.engine import EngineCore
from kvorum.harness.tools.call_form import CallForm, call_form
from kvorum.harness.tools.tool import Tool
from kvorum.sampling.grammar import Grammar
from kvorum.serve.asked_tools import AskedTools

_KEPT = 64


class ToolCalls:
    """For one engine. To be used from any thread."""

    def __init__(self, engine: EngineCore) -> None:
        self._engine = engine
        self._grammar = lru_cache(_KEPT)(self._make)

    @cached_property
    def form(self) -> CallForm:
        """The form of the model's chat template, or the plain one."""
        return call_form(self._engine)

    def grammar(self, asked: AskedTools, answer: Grammar | None) -> Grammar | None:
        """What a turn may be: words, and calls of the tools. ``answer``: what words are held to.

        Raises:
            BadRequest: tools and an answer that is no schema cannot be held together.
        """
        tools = json.dumps([[tool.name, tool.parameters] for tool in asked.usable])
        return self._grammar(tools, asked.choice, asked.parallel, answer)

    def _make(self, tools: str, choice: str, parallel: bool, answer: Grammar | None) -> Grammar | None:
        usable = [Tool(name, "", parameters) for name, parameters in json.loads(tools)]
        return self.form.grammar(usable, choice, parallel=parallel, answer=answer)
