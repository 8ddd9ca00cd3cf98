"""Bodies of ``/v1/responses``. What is not there is refused by name; what changes nothing is left unread."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from pydantic import Field, JsonValue, StrictBool, StrictInt

from kvorum.sampling.grammar import Grammar
from kvorum.serve.answer_grammar import OBJECT, made_grammar
from kvorum.serve.errors import ApiError
from kvorum.serve.request_models.base import Number, RequestModel, Seed, Share, Words
from kvorum.serve.request_models.completions import CompletionBase, Extra
from kvorum.serve.request_models.messages import Name
from kvorum.serve.request_models.tools import (
    AllowedTools,
    ChosenFunction,
    FunctionForm,
    ToolChoice,
    ToolForm,
    ToolsForm,
)

Item = dict[str, JsonValue]
_ABSENT = ("conversation", "prompt", "background", "context_management", "moderation")


class ResponseTool(RequestModel):
    """A tool; only functions are."""

    type: str = Field(max_length=80)
    name: Name | None = None
    description: Words | None = None
    parameters: dict[str, JsonValue] | None = None
    strict: StrictBool | None = None


class ResponseChoice(RequestModel):
    """The function that is to be called, or those that may be."""

    type: str = Field(max_length=80)
    name: Name | None = None
    mode: Literal["auto", "required"] = "auto"
    tools: list[ToolChoice] | None = Field(None, min_length=1, max_length=256)


class TextFormat(RequestModel):
    """What the answer is held to: ``text``, ``json_object``, or ``json_schema`` with a schema."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    given: dict[str, JsonValue] | None = Field(None, alias="schema")
    strict: StrictBool | None = None
    description: str | None = None


class TextConfig(RequestModel):
    """The field ``text``."""

    format: TextFormat = Field(default_factory=lambda: TextFormat())
    verbosity: str | None = None


class ResponseForm(RequestModel):
    """The body of ``POST /v1/responses``."""

    model: str = Field(max_length=300)
    input: Words | Annotated[list[Item], Field(max_length=4096)] | None = None
    instructions: Words | None = None
    previous_response_id: str | None = Field(None, max_length=80)
    store: StrictBool = True
    stream: StrictBool = False
    max_output_tokens: StrictInt | None = Field(None, ge=1, lt=2**31)
    temperature: Number | None = Field(None, ge=0, le=100)
    top_p: Share | None = None
    tools: list[ResponseTool] | None = Field(None, max_length=256)
    tool_choice: Literal["none", "auto", "required"] | ResponseChoice | None = None
    parallel_tool_calls: StrictBool = True
    text: TextConfig = Field(default_factory=lambda: TextConfig())
    truncation: Literal["auto", "disabled"] = "disabled"
    metadata: Annotated[dict[str, JsonValue], Field(max_length=16)] = Field(default_factory=dict)
    user: str | None = Field(None, max_length=256)
    seed: Seed | None = None
    kvorum: Extra = Field(default_factory=lambda: Extra())
    background: StrictBool | None = None
    conversation: JsonValue = None
    prompt: JsonValue = None
    context_management: JsonValue = None
    moderation: JsonValue = None

    def check(self) -> None:
        """Raises ApiError for what is not there."""
        for name in _ABSENT:
            if getattr(self, name):
                message = f"{name} is not there: a response is made while its client waits, from input and tools."
                raise ApiError(400, message, param=name)
        if not self.input and self.previous_response_id is None:
            raise ApiError(400, "There is no input; say what is to be answered.", param="input")

    def asked(self) -> ToolsForm:
        """The tools in the form of chat completions. Raises ApiError for one that is no function."""
        tools = []
        for at, tool in enumerate(self.tools or ()):
            if tool.type != "function" or tool.name is None:
                message = f"Only tools of type function with a name are taken here, not {tool.type[:60]!r}."
                raise ApiError(400, message, param=f"tools.{at}")
            function = FunctionForm(name=tool.name, description=tool.description, parameters=tool.parameters)
            tools.append(ToolForm(type="function", function=function))
        choice = self.tool_choice
        if isinstance(choice, ResponseChoice):
            allowed = AllowedTools(mode=choice.mode, tools=choice.tools) if choice.tools else None
            named = None if choice.name is None else ChosenFunction(name=choice.name)
            return ToolsForm(
                tools=tools,
                tool_choice=ToolChoice(type=choice.type, function=named, allowed_tools=allowed),
                parallel_tool_calls=self.parallel_tool_calls,
            )
        return ToolsForm(tools=tools, tool_choice=choice, parallel_tool_calls=self.parallel_tool_calls)

    def answer(self) -> tuple[Grammar, str] | None:
        """What the answer is held to, and the field that says so. Raises ApiError for a schema that is none."""
        asked = self.text.format
        if asked.type == "text":
            return None
        if asked.type == "json_schema" and asked.given is None:
            raise ApiError(400, "A format of type json_schema needs a schema.", param="text.format")
        return made_grammar("text.format", partial(Grammar.json, OBJECT if asked.given is None else asked.given))

    def decoding(self, tokens: int | None) -> CompletionBase:
        """The same as plain decoding takes it."""
        return CompletionBase(
            model=self.model,
            max_tokens=tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            user=self.user,
            kvorum=self.kvorum,
        )
