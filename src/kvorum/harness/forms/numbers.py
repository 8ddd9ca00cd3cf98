"""Numbers as texts write them: 1,250 and 1.250, 6.75 and 6,75, 18 500, 2.5 million.

A row copies a number as the text has it, and it is read here, by the mark that *this* text writes before decimals: a
model that must turn 6,75 into JSON's 6.75 under a grammar writes 675 now and then. Not covered: numbers in words, which
a model turns into digits well; digits of other scripts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

_AS_WRITTEN = r"([0-9]{1,3}([ ,.'\u00a0\u202f][0-9]{3}){1,4}|[0-9]{1,15})([.,][0-9]{1,6})?"
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_MINUS = "-\u2212"
_BLANKS = "[ '\u00a0\u202f\u2019]"
_NUMBER = re.compile(rf"[{_MINUS}]? ?{_AS_WRITTEN}( ({'|'.join(_SCALES)}))?")
_FOUND = re.compile(rf"(?<![\w.,])[0-9]+(?:(?:[.,]|{_BLANKS}(?=[0-9]{{3}}(?![0-9])))[0-9]+)*(?![0-9])")
_NEGATIVE = re.compile(rf"(?<![\w-])[{_MINUS}] ?[0-9]|\bminus\b")
_THOUSANDS = re.compile(r"[0-9]{1,3}(([.,])[0-9]{3})(\2[0-9]{3})+")


@dataclass(frozen=True, slots=True)
class Reading:
    """A number as it was read. ``other``: what it could be as well; None where there is no doubt."""

    value: int | float
    other: int | float | None = None


class Numbers:
    """The numbers of one text."""

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def pattern(self) -> str:
        """What a row may write for a number: a regular expression of Rust and of Python. A sign and "million" are in it
        only where the text has such, for what is allowed and makes no sense is written now and then."""
        scales = "|".join(scale for scale in _SCALES if scale in self._text)
        sign = "-?" if _NEGATIVE.search(self._text) else ""
        return sign + _AS_WRITTEN + (f"( ({scales}))?" if scales else "")

    @cached_property
    def decimal(self) -> str:
        """The mark before decimals, as the numbers say that can be read in one way alone; "" where they do not say."""
        votes = Counter(mark for number in _FOUND.findall(self._text) if (mark := decimal_mark(number)))
        first, second = [*votes.most_common(2), ("", 0), ("", 0)][:2]
        return first[0] if first[1] > second[1] else ""

    @cached_property
    def readings(self) -> dict[str, Reading]:
        """What each number means, by how the text writes it."""
        return {number: read(number, self.decimal) for number in _FOUND.findall(self._text)}

    def read(self, written: str) -> Reading | None:
        """A number that a row wrote, as what it means in this text; None for what is no number.

        One that does not stand in the text was turned into JSON's way of writing by the model.
        """
        words = written.strip()
        if _NUMBER.fullmatch(words) is None:
            return None
        scale = next((name for name in _SCALES if words.endswith(name)), "")
        digits = words.removesuffix(scale).strip().lstrip(_MINUS).strip()
        sign = -1 if words[0] in _MINUS else 1
        found = self.readings.get(digits) or read(digits, ".")
        by = sign * _SCALES.get(scale, 1)
        return Reading(_whole(found.value * by), None if found.other is None else _whole(found.other * by))

    def as_the_text(self, value: int | float) -> str:
        """JSON's ``value`` as this text has it: 675 and 6.75 as 6,75 where that is its only number of these digits."""
        plain = str(value)
        digits = _digits(plain)
        alike = {written for written in self.readings if _digits(written) == digits}
        here = any(value in (one.value, one.other) for one in self.readings.values())
        return plain if here or len(alike) != 1 else ("-" if value < 0 else "") + alike.pop()

    def torn(self, value: int | float) -> str:
        """The number of the text that ``value`` is without its mark, as 185 is 18.5 torn; "" for none."""
        return self._like(value, lambda written, number: re.sub(r"\D", "", written).lstrip("0"))

    def cut(self, value: int | float) -> str:
        """The number of the text of which ``value`` is the whole part alone, as 18 is of 18.5; "" for none."""
        return self._like(value, lambda written, number: str(int(number)))

    def _like(self, value: int | float, digits: Callable[[str, float], str]) -> str:
        """The number with decimals whose ``digits`` are those of ``value``, where that does not stand in the text."""
        whole = abs(value)
        found = [(written, reading) for written, reading in self.readings.items()]
        if whole < 10 or whole != int(whole) or any(whole in (one.value, one.other) for _, one in found):
            return ""
        names = (
            name for name, one in found if one.value != int(one.value) and digits(name, one.value) == str(int(whole))
        )
        return next(names, "")


def _digits(number: str) -> str:
    """The digits of a number that count, whatever marks stand between them: of 6,750 those of 6.75."""
    return re.sub(r"\D", "", number).strip("0")


def decimal_mark(number: str) -> str:
    """The mark before decimals that a number can only be read with; "" where it can be read in several ways."""
    marks = re.sub(r"[^.,]", "", number)
    if len(set(marks)) == 2:
        return marks[-1] if marks.count(marks[-1]) == 1 else ""
    if len(marks) == 1:
        before, _, behind = number.partition(marks)
        return marks if len(behind) != 3 or before == "0" or len(before) > 3 else ""
    if _THOUSANDS.fullmatch(number):
        return "." if marks[0] == "," else ","
    return ""


def read(number: str, decimal: str) -> Reading:
    """What a number means where ``decimal`` stands before decimals; "": nobody knows, so a comma stands between
    thousands and a point before decimals, as in English and in JSON."""
    sure = decimal_mark(number) or decimal
    digits = re.sub(_BLANKS, "", number)
    marks = re.sub(r"[^.,]", "", digits)
    if sure or len(marks) != 1:
        return Reading(_value(digits, sure or "."))
    return Reading(_value(digits, "."), _value(digits, ","))


def _value(digits: str, mark: str) -> int | float:
    whole, found, behind = digits.rpartition(mark) if digits.count(mark) == 1 else (digits, "", "")
    if not found or not behind.isdigit():
        return int(re.sub("[.,]", "", digits))
    return _whole(float(f"{re.sub('[.,]', '', whole)}.{behind}"))


def _whole(value: int | float) -> int | float:
    return int(value) if value == int(value) else value
