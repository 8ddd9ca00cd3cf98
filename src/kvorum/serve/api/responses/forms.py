"""Bodies of ``/v1/responses``. What is not there is refused by name; what changes nothing here is taken."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue, StrictBool, StrictInt

from kvorum.sampling.grammar import Grammar
from kvorum.serve.answer_grammar import OBJECT, made_grammar
from kvorum.serve.errors import ApiError
from kvorum.serve.request_models.base import Count, RequestModel, StrictRequest, Words
from kvorum.serve.request_models.chat import Effort, thinks
from kvorum.serve.request_models.completions import IDLE, CompletionBase, Extra
from kvorum.serve.request_models.messages import Name
from kvorum.serve.request_models.picking import Picking
from kvorum.serve.request_models.tools import (
    AllowedTools,
    ChosenFunction,
    FunctionForm,
    ToolChoice,
    ToolForm,
    ToolsForm,
)

Item = dict[str, JsonValue]
_MADE_OF = "is not there: a response is made from input, instructions, tools, and the response before it."


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


class TextFormat(StrictRequest):
    """What the answer is held to: ``text``, ``json_object``, or ``json_schema`` with a schema."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    given: dict[str, JsonValue] | None = Field(None, alias="schema")
    strict: StrictBool | None = None
    description: str | None = None


class TextConfig(StrictRequest):
    """The field ``text``."""

    format: TextFormat = Field(default_factory=lambda: TextFormat())
    verbosity: Literal["medium"] = "medium"


class ReasoningConfig(StrictRequest):
    """How hard a model is to think. Its thoughts are told whole, so that no summary is made of them."""

    idle = frozenset({"summary", "generate_summary", "context", "mode"})
    effort: Effort | None = None


class Agents(StrictRequest):
    """OpenAI's ``multi_agent``. The team is the one that the model's name says."""

    enabled: StrictBool
    max_concurrent_subagents: Count | None = None


class ObfuscationOptions(StrictRequest):
    """``stream_options``, which say nothing that is done here."""

    idle = frozenset({"include_obfuscation"})


class ResponseForm(Picking):
    """The body of ``POST /v1/responses``. ``include``: encrypted thoughts, which are not there, may be asked for."""

    idle = IDLE - {"metadata"} | {"max_tool_calls", "background_options"}
    absent: ClassVar[Mapping[str, str]] = {
        **{name: f"{name} {_MADE_OF}" for name in ("conversation", "prompt", "context_management")},
        "moderation": "moderation is not there: nothing is judged here.",
        "image": "image is not there: only text is written here.",
        "access_programs": "access_programs are not there: they are of OpenAI's own service.",
        "top_logprobs": "top_logprobs are in chat completions and completions.",
    }
    model: str = Field(max_length=300)
    input: Words | Annotated[list[Item], Field(max_length=4096)] | None = None
    instructions: Words | None = None
    previous_response_id: str | None = Field(None, max_length=80)
    store: StrictBool = True
    stream: StrictBool = False
    max_output_tokens: StrictInt | None = Field(None, ge=1, lt=2**31)
    tools: list[ResponseTool] | None = Field(None, max_length=256)
    tool_choice: Literal["none", "auto", "required"] | ResponseChoice | None = None
    parallel_tool_calls: StrictBool = True
    text: TextConfig = Field(default_factory=lambda: TextConfig())
    truncation: Literal["auto", "disabled"] = "disabled"
    metadata: Annotated[dict[str, JsonValue], Field(max_length=16)] = Field(default_factory=dict)
    user: str | None = Field(None, max_length=256)
    reasoning: ReasoningConfig = Field(default_factory=lambda: ReasoningConfig())
    multi_agent: Agents | None = None
    include: list[Literal["reasoning.encrypted_content"]] | None = None
    stream_options: ObfuscationOptions | None = None
    kvorum: Extra = Field(default_factory=lambda: Extra())
    background: StrictBool = False

    def check(self) -> None:
        """Raises ApiError for what is not there."""
        if self.background and not self.store:
            raise ApiError(400, "A response in the background is stored: leave store out.", param="background")
        if not self.input and self.previous_response_id is None:
            raise ApiError(400, "There is no input; say what is to be answered.", param="input")

    def check_agents(self, workers: int | None) -> None:
        """Raises ApiError where agents are asked for and the model's name has no program, or too many ``workers``."""
        asked = self.multi_agent
        if asked is None or not asked.enabled:
            return
        if workers is None:
            message = "Agents are the workers of a program, which the model's name says, as in NAME:PROGRAM-4."
            raise ApiError(400, message, param="multi_agent")
        most = asked.max_concurrent_subagents
        if most is not None and workers > most:
            message = f"The model's name asks for {workers} workers, and max_concurrent_subagents is {most}."
            raise ApiError(400, message, param="multi_agent.max_concurrent_subagents")

    @property
    def thinks(self) -> bool | None:
        """Whether the model is told to think; None: as its chat template has it."""
        return thinks(self.reasoning.effort)

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
        return self.told_to(CompletionBase(model=self.model, max_tokens=tokens, user=self.user, kvorum=self.kvorum))
