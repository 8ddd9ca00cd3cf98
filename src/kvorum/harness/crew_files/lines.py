"""YAML of which every part knows its line, so that what is wrong in a file is told with its place.

All scalars are text. Nothing of YAML is carried out, and a file that repeats itself by anchors ends at a limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import yaml

from kvorum.errors import BadRequest
from kvorum.harness.plain_yaml import compose
from kvorum.wording import unknown

MOST_CHARACTERS = 20_000
_MOST_PARTS, _DEEPEST = 2_000, 12


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a file: ``name`` is where it stands, as in ``workers.Ann``; ``line`` counts from 1."""

    name: str
    line: int
    value: str | Sequence[Part] | Mapping[str, Part]

    def error(self, words: str) -> BadRequest:
        """An error about this part, to be raised."""
        return BadRequest(f"line {self.line}: {words}")

    def text(self) -> str:
        """The text that it is. Raises BadRequest: it is none, or empty."""
        if not isinstance(self.value, str):
            raise self.error(f"{self.name} is a text.")
        if not self.value.strip():
            raise self.error(f"{self.name} is empty; say something, or leave it out.")
        return self.value.strip()

    def number(self, low: int, high: int) -> int:
        """The whole number that it is. Raises BadRequest: it is none within these bounds."""
        words = self.text()
        if not words.isdecimal() or not low <= int(words) <= high:
            raise self.error(f"{self.name} is a whole number from {low} to {high}, not {words!r:.40}.")
        return int(words)

    def one_of(self, words: Sequence[str], kind: str) -> str:
        """The word of these that it is. Raises BadRequest, with the near ones."""
        found = self.text()
        if found not in words:
            raise self.error(unknown(kind, found, words))
        return found

    def items(self) -> Sequence[Part]:
        """The items of a list; a text alone is a list of one. Raises BadRequest: there are none."""
        if isinstance(self.value, Mapping):
            raise self.error(f"{self.name} is a list, not a mapping.")
        found = [self] if isinstance(self.value, str) else self.value
        if not found:
            raise self.error(f"{self.name} has nothing in it.")
        return found

    def fields(self) -> Mapping[str, Part]:
        """What a mapping of names of one's own has. Raises BadRequest: it is no mapping, or empty."""
        if not isinstance(self.value, Mapping) or not self.value:
            raise self.error(f"{self.name} has names with what belongs to each below them.")
        return self.value

    def keys(self, known: Iterable[str], needed: Iterable[str] = ()) -> Mapping[str, Part]:
        """What a mapping with these keys has. Raises BadRequest: another key, with the near ones, or one is missing."""
        known = list(known)
        found = self.fields()
        for key, part in found.items():
            if key not in known:
                raise part.error(unknown("key", key, known, owner=self.name))
        for key in needed:
            if key not in found:
                raise self.error(f"{self.name} lacks {key}.")
        return found


def read_parts(text: str, name: str) -> Part:
    """The parts of a YAML text, which is called ``name``.

    Raises:
        BadRequest: it is no YAML, or beyond a limit; the message has the line.
    """
    if len(text) > MOST_CHARACTERS:
        raise BadRequest(f"{name} has {len(text):,} characters, and may have {MOST_CHARACTERS:,}.")
    try:
        node = compose(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = "" if mark is None else f"line {mark.line + 1}: "
        raise BadRequest(f"{place}{name} is no YAML: {error.problem or error.context}.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise BadRequest(f"{name} is no YAML: {str(error).splitlines()[0]}.") from None
    if node is None:
        raise BadRequest(f"{name} is empty.")
    return _part(node, name, [_MOST_PARTS], _DEEPEST)


def _part(node: yaml.Node, name: str, left: list[int], depth: int) -> Part:
    left[0] -= 1
    line = node.start_mark.line + 1
    if left[0] < 0 or not depth:
        raise BadRequest(f"line {line}: the file has more parts in one another than a crew can need.")
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Part] = {}
        for key, value in node.value:
            place = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise BadRequest(f"line {place}: a name in {name} is no text.")
            if key.value in found:
                raise BadRequest(f"line {place}: {key.value[:80]!r} stands twice in {name}.")
            inner = _part(value, f"{name}.{key.value}" if depth < _DEEPEST else str(key.value), left, depth - 1)
            found[str(key.value)] = Part(inner.name, place, inner.value)
        return Part(name, line, found)
    if isinstance(node, yaml.SequenceNode):
        return Part(name, line, [_part(one, name, left, depth - 1) for one in node.value])
    return Part(name, line, str(node.value))
