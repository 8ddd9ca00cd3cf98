"""The head of a SKILL.md: YAML between two lines of ---, read leniently, with all that is wrong in it said.

Every value is read as text, so that ``name: 123`` and ``version: 1.10`` stay what they look like. Nothing of YAML is
carried out: no tags, and no more nodes than a head can need.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import yaml

from kvorum.harness.plain_yaml import compose

Value: TypeAlias = "str | Sequence[Value] | Mapping[str, Value]"

MOST_HEAD = 64_000
"""Characters of a head."""
_MOST_NODES = 2_000
_LINE = re.compile(r"(?P<key>[A-Za-z_-]+):[ \t]+(?P<value>[^\"'\s|>\[{&*!#%@`].*:.*)")
"""A plain value with a colon in it, which strict YAML does not take."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a SKILL.md says. ``fields``: of its head; ``body``: the Markdown behind it; ``problems``: where it is not as
    the specification has it; ``broken``: why nothing of it can be used, "" where it can."""

    fields: Mapping[str, Value] = field(default_factory=dict)
    body: str = ""
    problems: Sequence[str] = ()
    broken: str = ""


def read_head(data: bytes) -> Head:
    """The file's head and body. Line ends of Windows and a byte order mark before the head mean nothing."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        kind = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else f"not UTF-8 (byte {error.start + 1})"
        return Head(broken=f"it is {kind}; save it as UTF-8")
    if "\0" in text:
        return Head(broken="it holds NUL bytes, as UTF-16 and binary files do; save it as UTF-8")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if lines[0].rstrip() != "---":
        return Head(broken="it does not begin with a line of ---")
    end = next((at for at, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    if end is None:
        return Head(broken="its head is not closed by a second line of ---")
    head, body = "\n".join(lines[1:end]), "\n".join(lines[end + 1 :]).strip()
    if len(head) > MOST_HEAD:
        return Head(broken=f"its head has more than {MOST_HEAD:,} characters")
    fields, why = _fields(head)
    problems = []
    if why:
        mended = "\n".join(_quoted(line) for line in head.split("\n"))
        fields, still = _fields(mended)
        if still:
            return Head(broken=f"its head is no YAML: {why}")
        problems.append(
            f"its head is no strict YAML ({why}); values with a colon in them were read as text: quote them"
        )
    return Head(fields, body, problems)


def _fields(head: str) -> tuple[Mapping[str, Value], str]:
    """The fields, and why there are none."""
    try:
        node = compose(head)
        if node is None:
            return {}, ""
        if not isinstance(node, yaml.MappingNode):
            return {}, "it is no list of fields with values"
        left = [_MOST_NODES]
        found = _value(node, left)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = "" if mark is None else f" in line {mark.line + 2}, column {mark.column + 1}"
        return {}, f"{error.problem or error.context}{place}"
    except (yaml.YAMLError, ValueError) as error:
        return {}, str(error).splitlines()[0]
    return (found if isinstance(found, Mapping) else {}), ""


def _value(node: yaml.Node, left: list[int]) -> Value:
    """Raises ValueError: a field twice, or too many of them, as anchors that repeat one another make."""
    left[0] -= 1
    if left[0] < 0:
        raise ValueError(f"it has more than {_MOST_NODES:,} values")
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Value] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ValueError("a field's name is no text")
            if key.value in found:
                raise ValueError(f"the field {key.value[:80]!r} stands twice (line {key.start_mark.line + 2})")
            found[str(key.value)] = _value(value, left)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_value(one, left) for one in node.value]
    return str(node.value)


def _quoted(line: str) -> str:
    """A line of the head with its value in quotes where that has a colon."""
    found = _LINE.fullmatch(line.rstrip())
    if found is None:
        return line
    return found["key"] + ': "' + found["value"].replace("\\", "\\\\").replace('"', '\\"') + '"'
