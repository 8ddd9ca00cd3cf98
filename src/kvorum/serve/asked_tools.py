"""The tools that a request brings, and what it says of their use."""

from __future__ import annotations

from dataclasses import dataclass

from kvorum.errors import BadRequest
from kvorum.harness.tools.tool import Tool, tool_from_schema
from kvorum.serve.errors import ApiError
from kvorum.serve.request_models.tools import ToolChoice, ToolsForm
from kvorum.wording import unknown


@dataclass(frozen=True, slots=True)
class AskedTools:
    """``tools`` are those that the model is told of, ``usable`` those that it may call.

    ``choice``: "auto", "none", "required", or the name of the one that it must call.
    """

    tools: tuple[Tool, ...] = ()
    usable: tuple[Tool, ...] = ()
    choice: str = "auto"
    parallel: bool = True

    @property
    def named(self) -> bool:
        """Whether one tool must be called, by its name."""
        return self.choice not in ("auto", "none", "required")


def asked_tools(form: ToolsForm) -> AskedTools:
    """The tools of a request.

    Raises:
        ApiError: a tool that is no function, two of one name, no schema, or a choice of what there is not.
    """
    tools: list[Tool] = []
    for at, given in enumerate(form.tools or ()):
        place = f"tools.{at}"
        function = given.function
        if given.type != "function" or function is None:
            raise ApiError(400, f"Only tools of type function are taken here, not {given.type!r:.60}.", param=place)
        if any(tool.name == function.name for tool in tools):
            raise ApiError(400, f"There are two tools named {function.name!r:.80}; names must differ.", param=place)
        try:
            tools.append(tool_from_schema(function.name, function.description or "", function.parameters))
        except BadRequest as error:
            raise ApiError(400, str(error), param=place) from error
    parallel = form.parallel_tool_calls is not False
    choice, names = _choice(form.tool_choice, [tool.name for tool in tools])
    usable = tuple(tool for tool in tools if tool.name in names)
    return AskedTools(tuple(tools), usable, choice, parallel)


def _choice(given: str | ToolChoice | None, there: list[str]) -> tuple[str, list[str]]:
    """The choice, and the names that it leaves."""
    if not isinstance(given, ToolChoice):
        choice = "required" if given == "any" else given or "auto"
        if choice == "required" and not there:
            raise ApiError(400, "A call is required, and there are no tools.", param="tool_choice")
        return choice, there
    if given.type == "allowed_tools" and given.allowed_tools is not None:
        names = [_known(one, there) for one in given.allowed_tools.tools]
        return given.allowed_tools.mode, names
    name = _known(given, there)
    return name, [name]


def _known(given: ToolChoice, there: list[str]) -> str:
    name = given.name if given.function is None else given.function.name
    if given.type != "function" or name is None:
        raise ApiError(400, "A choice names a function: its type and its name.", param="tool_choice")
    if name not in there:
        raise ApiError(400, unknown("tool", name, there), param="tool_choice")
    return name
