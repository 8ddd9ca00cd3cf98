"""Tools as requests bring them: what may be called, and whether something must be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, JsonValue, StrictBool

from kvorum.serve.request_models.base import RequestModel, StrictRequest, Words
from kvorum.serve.request_models.messages import Name


class FunctionForm(RequestModel):
    """A function of the client's. Whether ``strict`` or not, arguments are held to ``parameters``."""

    name: Name
    description: Words | None = None
    parameters: dict[str, JsonValue] | None = None
    strict: StrictBool | None = None


class ToolForm(RequestModel):
    """A tool; only functions are."""

    type: str = Field("function", max_length=80)
    function: FunctionForm | None = None


class ChosenFunction(RequestModel):
    """The name of a function."""

    name: Name


class AllowedTools(RequestModel):
    """Some of the tools, and whether one of them must be called."""

    mode: Literal["auto", "required"] = "auto"
    tools: list[ToolChoice] = Field(min_length=1, max_length=256)


class ToolChoice(RequestModel):
    """The function that is to be called, or those that may be."""

    type: str = Field("function", max_length=80)
    function: ChosenFunction | None = None
    name: Name | None = None
    allowed_tools: AllowedTools | None = None


class ToolsForm(StrictRequest):
    """What of a request's body is about tools. ``tool_choice`` "any" is "required" by another name."""

    absent: ClassVar[Mapping[str, str]] = {
        "functions": "functions are an older form; send tools and tool_choice.",
        "function_call": "function_call is an older form; send tools and tool_choice.",
    }

    tools: list[ToolForm] | None = Field(None, max_length=256)
    tool_choice: Literal["none", "auto", "required", "any"] | ToolChoice | None = None
    parallel_tool_calls: StrictBool | None = None
