"""Bodies of ``/v1/messages`` and how they are a chat: blocks of content as messages, calls and results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue, StrictBool, StrictInt

from kvorum.jsontypes import Json
from kvorum.sampling.grammar import Grammar
from kvorum.serve.answer_grammar import made_grammar
from kvorum.serve.error_forms import NO_THREADS
from kvorum.serve.errors import ApiError
from kvorum.serve.request_models.base import RequestModel, StrictRequest, Words
from kvorum.serve.request_models.completions import CompletionBase, Extra
from kvorum.serve.request_models.messages import Name
from kvorum.serve.request_models.picking import Picking
from kvorum.serve.request_models.tools import ChosenFunction, FunctionForm, ToolChoice, ToolForm, ToolsForm


class Block(RequestModel):
    """One block of a message's content; which fields it has depends on its type."""

    type: str = Field(max_length=80)
    text: Words | None = None
    id: Name | None = None
    name: Name | None = None
    input: dict[str, JsonValue] | None = None
    tool_use_id: Name | None = None
    content: Words | list[Block] | None = None


class ClaudeMessage(RequestModel):
    """A turn of the conversation."""

    role: Literal["user", "assistant"]
    content: Words | Annotated[list[Block], Field(max_length=4096)]


class ClaudeTool(RequestModel):
    """A tool of the client's."""

    name: Name
    type: str = Field("custom", max_length=80)
    description: Words | None = None
    input_schema: dict[str, JsonValue] | None = None


class ClaudeChoice(RequestModel):
    """Whether a tool must be used, and which."""

    type: Literal["auto", "any", "tool", "none"]
    name: Name | None = None
    disable_parallel_tool_use: StrictBool = False


class Thinking(RequestModel):
    """Whether the model is to think first."""

    type: Literal["enabled", "disabled", "adaptive"]


class Metadata(RequestModel):
    """Whose request it is."""

    user_id: str | None = Field(None, max_length=256)


class OutputFormat(RequestModel):
    """The schema that the words of the reply are held to."""

    type: Literal["json_schema"]
    given: dict[str, JsonValue] = Field(alias="schema")


class OutputConfig(StrictRequest):
    """The form of the reply. There is no more and less of ``effort`` here."""

    idle = frozenset({"effort"})
    absent: ClassVar[Mapping[str, str]] = {
        "task_budget": "task_budget is not there; max_tokens holds a reply, thoughts included."
    }
    format: OutputFormat | None = None


class Edit(RequestModel):
    """A change of the context before the model reads it. Thoughts of earlier turns are never read here."""

    type: Literal["clear_thinking_20251015"]


class ContextManagement(StrictRequest):
    """``context_management``, as Anthropic's own tools send it."""

    edits: list[Edit] = Field(default_factory=list, max_length=16)


class CountForm(StrictRequest):
    """What of a request makes its prompt: the body of ``/v1/messages/count_tokens``."""

    idle = frozenset(
        {
            "billing_policy",
            "cache_control",
            "diagnostics",
            "inference_geo",
            "service_tier",
            "speed",
            "user_profile_id",
            "workspace_id",
        }
    )
    absent: ClassVar[Mapping[str, str]] = {
        "compaction": "compaction is not there: send a shorter conversation.",
        "container": "container is not there: nothing is run here.",
        "fallbacks": "fallbacks are not there: a request is answered by the model that it names.",
        "fallback_credit_token": "fallback_credit_token is not there, as there are no fallbacks.",
        "mcp_servers": "mcp_servers are not asked by this server: give their tools as tools.",
    }
    model: str = Field(max_length=300)
    messages: list[ClaudeMessage] = Field(min_length=1, max_length=4096)
    system: Words | list[Block] | None = None
    tools: list[ClaudeTool] | None = Field(None, max_length=256)
    tool_choice: ClaudeChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig = Field(default_factory=lambda: OutputConfig())
    context_management: ContextManagement | None = None

    @property
    def thinks(self) -> bool | None:
        """Whether the model is told to think; None: as its chat template has it."""
        return True if self.thinking is not None and self.thinking.type == "enabled" else None

    def chat(self) -> list[dict[str, Json]]:
        """The conversation in the form of chat completions. Raises ApiError for a block that cannot be read."""
        found: list[dict[str, Json]] = []
        if self.system:
            found.append({"role": "system", "content": _text(self.system, "system")})
        if self.messages[-1].role == "assistant":
            message = "A reply that the request begins itself is not taken: the last message is the user's."
            raise ApiError(400, message, param=f"messages.{len(self.messages) - 1}")
        for at, turn in enumerate(self.messages):
            found += _turn(turn, f"messages.{at}")
        return found

    def asked(self) -> ToolsForm:
        """The tools in the form of chat completions. Raises ApiError for one that runs at Anthropic's."""
        tools = []
        for at, tool in enumerate(self.tools or ()):
            if tool.type != "custom":
                message = f"Tools are the client's own here; there is no {tool.type[:60]!r}."
                raise ApiError(400, message, param=f"tools.{at}")
            function = FunctionForm(name=tool.name, description=tool.description, parameters=tool.input_schema)
            tools.append(ToolForm(type="function", function=function))
        choice = self.tool_choice
        if choice is None:
            return ToolsForm(tools=tools)
        parallel = not choice.disable_parallel_tool_use
        if choice.type == "tool":
            named = None if choice.name is None else ChosenFunction(name=choice.name)
            chosen = ToolChoice(type="function", function=named)
            return ToolsForm(tools=tools, tool_choice=chosen, parallel_tool_calls=parallel)
        return ToolsForm(tools=tools, tool_choice=choice.type, parallel_tool_calls=parallel)


class MessagesForm(CountForm, Picking):
    """The body of ``POST /v1/messages``; beside Anthropic's fields, those of chat completions that pick tokens."""

    max_tokens: StrictInt = Field(ge=1, lt=2**31)
    stop_sequences: Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=16)] = Field(
        default_factory=list
    )
    stream: StrictBool = False
    metadata: Metadata = Field(default_factory=lambda: Metadata())
    output_format: OutputFormat | None = None
    """The same, as clients sent it before there was an ``output_config``."""
    thread: JsonValue = None
    kvorum: Extra = Field(default_factory=lambda: Extra())

    def check(self) -> None:
        """Raises ApiError for what is not there, in the way that has Anthropic's clients do without it."""
        if self.thread:
            message = (
                "thread is not there: send the whole conversation with each request (what of it was sent before is "
                "not encoded again), or use /v1/responses with previous_response_id."
            )
            raise ApiError(400, message, code=NO_THREADS, param="thread")

    def answer(self) -> tuple[Grammar, str] | None:
        """What the words of the reply are held to, and the field that says so. Raises ApiError for no schema."""
        place, asked = "output_config.format", self.output_config.format
        if asked is None:
            place, asked = "output_format", self.output_format
        return None if asked is None else made_grammar(place, partial(Grammar.json, asked.given))

    def decoding(self) -> CompletionBase:
        """The same as plain decoding takes it."""
        form = CompletionBase(
            model=self.model,
            max_tokens=self.max_tokens,
            stop=self.stop_sequences or None,
            user=self.metadata.user_id,
            kvorum=self.kvorum,
        )
        return self.told_to(form)


def _text(content: str | Sequence[Block] | None, place: str) -> str:
    """The text of blocks of text. Raises ApiError for others."""
    if content is None or isinstance(content, str):
        return content or ""
    for at, block in enumerate(content):
        if block.type != "text":
            message = f"{place}.{at} is of type {block.type[:60]!r}: only text is read here."
            raise ApiError(400, message, param=f"{place}.{at}")
    return "".join(block.text or "" for block in content)


def _turn(message: ClaudeMessage, place: str) -> list[dict[str, Json]]:
    """A turn as messages: results of tools are messages of their own, and stand before the words beside them."""
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    calls: list[Json] = []
    results: list[dict[str, Json]] = []
    words: list[Block] = []
    for at, block in enumerate(message.content):
        where = f"{place}.content.{at}"
        if block.type == "tool_use" and message.role == "assistant":
            if block.id is None or block.name is None:
                raise ApiError(400, f"{where} needs an id and a name.", param=where)
            function: dict[str, Json] = {"name": block.name, "arguments": block.input or {}}
            calls.append({"id": block.id, "type": "function", "function": function})
        elif block.type == "tool_result" and message.role == "user":
            if block.tool_use_id is None:
                raise ApiError(400, f"{where} needs the tool_use_id that it is the result of.", param=where)
            text = _text(block.content, f"{where}.content")
            results.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": text})
        elif block.type not in ("thinking", "redacted_thinking"):
            words.append(block)
    text = _text(words, f"{place}.content")
    if calls:
        return [{"role": "assistant", "content": text, "tool_calls": calls}]
    return [*results, {"role": message.role, "content": text}] if text or not results else [*results]
