"""The metadata of a GGUF file, taken key by key: what nobody took, and is not known to have no effect, is refused."""

from __future__ import annotations

import math
from collections.abc import Iterable

from kvorum.errors import ModelFileError, UnsupportedModel
from kvorum.models.gguf.file import GGUFFile, Value
from kvorum.models.gguf.keys import FOREIGN, NEUTRAL, NO_EFFECT, NO_EFFECT_PREFIXES, NO_EFFECT_TOKENIZER


class Metadata:
    """A file's keys by name; those of its architecture without the prefix. Remembers which were taken."""

    def __init__(self, file: GGUFFile) -> None:
        self.file = file
        self.prefix = f"{file.architecture}."
        self._taken: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return self._full(key) in self.file.metadata

    def _full(self, key: str) -> str:
        return key if key.startswith(("general.", "tokenizer.", "split.")) else self.prefix + key

    def take(self, key: str) -> Value | None:
        """The key's value, or None where the file has no such key."""
        name = self._full(key)
        self._taken.add(name)
        return self.file.metadata.get(name)

    def _refuse(self, key: str, wanted: str) -> ModelFileError:
        found = self.file.metadata.get(self._full(key))
        said = "is missing" if found is None else f"is {_shown(found)}, and must be {wanted}"
        return ModelFileError(f"{self.file.path} cannot be run: its key {self._full(key)} {said}.")

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number; a list of one and the same number counts as it. Without a default it must be there."""
        value = self.take(key)
        if isinstance(value, list) and value and all(item == value[0] for item in value):
            value = value[0]
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            several = isinstance(value, list)
            raise self._refuse(key, "the same number in every layer" if several else "a number")
        return float(value)

    def positive(self, key: str, default: float | None = None) -> float:
        """A number above zero."""
        value = self.number(key, default)
        if value <= 0:
            raise self._refuse(key, "above zero")
        return value

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number, not below zero."""
        value = self.number(key, default)
        if value != int(value) or value < 0:
            raise self._refuse(key, "a whole number")
        return int(value)

    def count(self, key: str, default: int | None = None) -> int:
        """A whole number above zero."""
        value = self.whole(key, default)
        if value == 0:
            raise self._refuse(key, "above zero")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.take(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._refuse(key, "true or false")
        return value

    def text(self, key: str) -> str | None:
        """A text, or None."""
        value = self.take(key)
        if value is not None and not isinstance(value, str):
            raise self._refuse(key, "a text")
        return value

    def texts(self, key: str) -> list[str] | None:
        """A list of texts, or None."""
        value = self.take(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._refuse(key, "a list of texts")
        return [str(item) for item in value]

    def numbers(self, key: str) -> list[float] | None:
        """A list of numbers, or None."""
        value = self.take(key)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self._refuse(key, "a list of numbers")
        found = [item for item in value if isinstance(item, int | float)]
        if len(found) != len(value):
            raise self._refuse(key, "a list of numbers")
        return found

    def unaccounted(self, ignore_unknown: bool) -> list[str]:
        """The keys that were not taken and have no known meaning here; raises unless they may be ignored.

        Raises `UnsupportedModel` for a key that is known to change what is computed, whether or not.
        """
        unknown, changing = [], []
        for name, value in self.file.metadata.items():
            own = name.startswith(self.prefix)
            key = name.removeprefix(self.prefix) if own else name
            if name in self._taken or _harmless(key, own):
                continue
            if key in NEUTRAL:
                if not _same(value, NEUTRAL[key]):
                    changing.append(f"{name} = {_shown(value)}")
            elif own or name.startswith(("tokenizer.", *FOREIGN)):
                unknown.append(name)
        if changing:
            raise UnsupportedModel(
                f"{self.file.path} asks for what is not computed here for the architecture "
                f"{self.file.architecture}: {listed(changing)}."
            )
        if unknown and not ignore_unknown:
            raise UnsupportedModel(
                f"{self.file.path} has metadata that is not known here and may change what is computed: "
                f"{listed(unknown)}; --ignore-unknown (ignore_unknown=True) runs it without."
            )
        return unknown


def _harmless(key: str, own: bool) -> bool:
    if own:
        return key in NO_EFFECT
    return key in NO_EFFECT_TOKENIZER or key.startswith(tuple(NO_EFFECT_PREFIXES))


def _same(value: Value, neutral: tuple[object, ...]) -> bool:
    items = value if isinstance(value, list) else [value]
    return all(item in neutral for item in items)


def _shown(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = f"a list of {len(value)}" if isinstance(value, list) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def listed(names: Iterable[str], most: int = 4) -> str:
    """The first of `names` with commas, and how many more there are."""
    found = list(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more
