"""What comes of filling a form: the object, and of each field what is to be known of it."""

from __future__ import annotations

from dataclasses import dataclass

from kvorum.errors import KvorumError
from kvorum.jsontypes import Json


class NotFilled(KvorumError, ValueError):
    """A form of which a field that must be there could not be filled; ``form`` has the others."""

    def __init__(self, form: FilledForm) -> None:
        self.form = form
        (name, why), *others = form.problems.items()
        more = f" ({len(others)} more of its fields could not be filled either)" if others else ""
        super().__init__(f"The form cannot be filled as its schema wants it: {name}: {why}{more}.")


@dataclass(frozen=True, slots=True)
class FilledField:
    """A leaf as a row wrote it, by its path ``name``.

    ``value`` is what it says, None where the text does not tell it; ``note`` what a reader should know of it ("":
    nothing); ``confidence`` the probability, under its grammar, of writing just this, where it was asked for.
    ``tokens`` were fed and picked for it, the last in tick ``tick`` of the run, ``seconds`` after its beginning.
    """

    name: str
    value: Json
    note: str = ""
    confidence: float | None = None
    tokens: int = 0
    tick: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class FilledForm:
    """A form that was filled. ``value`` is the object, which fits the schema unless there are ``problems``, by path."""

    value: Json
    fields: tuple[FilledField, ...]
    problems: dict[str, str]

    @property
    def notes(self) -> dict[str, str]:
        """What a reader should know, by path."""
        return {one.name: one.note for one in self.fields if one.note}

    @property
    def confidence(self) -> dict[str, float]:
        """The probability of each leaf, by path; empty where it was not asked for."""
        return {one.name: one.confidence for one in self.fields if one.confidence is not None}

    def checked(self) -> FilledForm:
        """Itself. Raises NotFilled: there are problems."""
        if self.problems:
            raise NotFilled(self)
        return self
