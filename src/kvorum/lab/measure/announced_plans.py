"""Plans that workers announce, and whether the team keeps them.

"I take a and b, you take c", "Let me do question 2", "Alice: 1 and 2, Bob: 3": each says that a worker will do a part.
Read by fixed patterns of English, the same for the same text: who (I, me, a name, you), a verb of doing, which parts
(by their names, or counted from 1). A negated or past clause, and a part whose answer somebody had written already, are
no plan. "You" is the other one of two, or whoever was named just before.

Not covered: other languages, plans in other words ("the easy ones"), parts that are named by their answers or by the
workers (lists and facts have none that can be planned so). Done means that the right answer was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kvorum.lab.measure.worker_text import WorkerText
from kvorum.tasks.scoring import AnswerPart

_VERBS = (
    "take|do|solve|handle|tackle|answer|calculate|compute|find|cover|get|finish|try|work on|work out|focus on|look at|"
    "start with|start on|begin with|deal with"
)
_THIRDS = (
    "takes|does|solves|handles|tackles|answers|calculates|computes|finds|covers|gets|finishes|tries|works on|works out|"
    "focuses on|looks at|starts with|starts on|begins with|deals with"
)
_GERUNDS = (
    "taking|doing|solving|handling|tackling|answering|calculating|computing|finding|covering|finishing|trying|"
    "working on|working out|focusing on|looking at|starting with|starting on|beginning with|dealing with"
)
_NOUN = r"(?:questions?|parts?|problems?|steps?|items?|sub-?problems?|numbers?|letters?|tasks?)"
_WILL = r"(?:'ll|’ll| will| shall| should| can| could| would| must|'m going to| am going to| is going to| are going to)"
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


@dataclass(frozen=True, slots=True)
class Assignment:
    """``worker`` will do ``part``, as ``speaker`` announced in ``tick``."""

    tick: int
    speaker: str
    worker: str
    part: str


def announced(team: Sequence[WorkerText], parts: Sequence[AnswerPart]) -> list[Assignment]:
    """All assignments, each (worker, part) once, in the order of their ticks."""
    names = [lane.name for lane in team]
    if not _plannable(names, parts):
        return []
    patterns = _Patterns(names, [part.name for part in parts])
    found: dict[tuple[str, str], Assignment] = {}
    said = [one for lane in team for one in patterns.read(lane)]
    for one in sorted(said, key=lambda one: one.tick):
        found.setdefault((one.worker, one.part), one)
    return list(found.values())


def measure(
    team: Sequence[WorkerText], parts: Sequence[AnswerPart], written: Mapping[str, Mapping[str, int]]
) -> dict[str, float | None]:
    """Columns of a run's record. ``written``: part -> worker -> the tick in which it first wrote the right answer.

    ``plans``: how many assignments were announced. ``plan_kept``: the share that their workers carried out, and
    ``plan_followed`` the same of those that somebody else had announced. ``plan_respected``: the share of announced
    parts whose right answers nobody wrote but who was announced for them. None where there is nothing to share out, or
    nothing to plan.
    """
    if not _plannable([lane.name for lane in team], parts):
        return dict.fromkeys(("plans", "plan_kept", "plan_followed", "plan_respected"))
    plans = [
        one
        for one in announced(team, parts)
        if one.part in written and all(tick > one.tick for tick in written[one.part].values())
    ]
    kept = [one.worker in written[one.part] for one in plans]
    others = [done for one, done in zip(plans, kept, strict=True) if one.worker != one.speaker]
    announced_parts = dict.fromkeys(one.part for one in plans)
    alone = [written[part].keys() <= {one.worker for one in plans if one.part == part} for part in announced_parts]
    return {
        "plans": len(plans),
        "plan_kept": _share(kept),
        "plan_followed": _share(others),
        "plan_respected": _share(alone),
    }


def _plannable(names: Sequence[str], parts: Sequence[AnswerPart]) -> bool:
    return bool(parts) and not any(part.name == part.answer or part.name in names for part in parts)


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None


class _Patterns:
    """The patterns of one team and one item."""

    def __init__(self, names: Sequence[str], parts: Sequence[str]) -> None:
        self.names = list(names)
        self.parts = list(parts)
        self._by_name = {str(number): part for number, part in enumerate(parts, start=1)}
        self._by_name |= dict(zip(_ORDINALS, parts, strict=False)) | {part: part for part in parts}
        who = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
        spelt = {name for part in parts for name in (part, part.upper())} - {"I"}
        token = r"(?:\d+|" + "|".join(sorted(map(re.escape, spelt), key=len, reverse=True)) + ")"
        clear = rf"(?![ai]\b|\d){token}"  # no article, pronoun or amount, wherever it stands
        ends = rf"(?=\s*(?:[).,;:!?\n]|$|(?:and|&|to|through|-|–)\s*\(?{token}\b))"
        ordinal = rf"(?:{'|'.join(_ORDINALS)})(?! (?:two|three|four|few|half|\d))(?: {_NOUN}| one)?"
        own = rf"(?:{clear}(?!\w|\.\d)|{token}(?!\w|\.\d){ends})"
        one = rf"(?<!\w)(?:(?:the )?{ordinal}|{_NOUN} \(?{token}\)?(?!\w|\.\d)|\(?{token}\)(?!\w)|\(?{own})"
        self._one = re.compile(one)
        self._range = re.compile(rf"({token})\)? ?(?:to|through|-|–) ?\(?({token})(?!\w)")
        many = rf"(?:the )?(?:{_NOUN} )?{one}(?:(?:,? and |, ?| ?& ?| to | through | ?[-–] ?)(?:the )?{one})*"
        self._token = re.compile(rf"(?<!\w){token}(?!\w)")
        act = rf"(?:{_WILL} (?:now |first |also |then )?(?:{_VERBS})|(?: am| is| are|'m|'s|’m) (?:{_GERUNDS})"
        end = r"(?=\s*(?:[.,;\n]|$))"
        clauses = (
            rf"(?P<who>\bI){act}| (?:{_VERBS})) (?P<what>{many})",
            rf"\b[Ll]et (?P<who>me|{who}) (?:{_VERBS}) (?P<what>{many})",
            rf"(?P<who>\b(?:{who})){act}| (?:{_THIRDS})|, (?:please )?(?:{_VERBS})) (?P<what>{many})",
            rf"(?:\b(?P<called>{who}),? )?(?:\b(?P<who>[Yy]ou){act}| (?:{_VERBS}))) (?P<what>{many})",
            rf"(?P<who>\b(?:{who}))(?::| -| –| →| ->) (?P<what>{many}){end}",
            rf"(?P<what>{_NOUN} {token}|\b{token}\)?)(?::| -| –| →| ->|(?<=\))) (?P<who>{who}){end}",
        )
        self._clauses = [re.compile(clause) for clause in clauses]

    def read(self, lane: WorkerText) -> Iterator[Assignment]:
        """The assignments that one worker announces, clause by clause."""
        for pattern in self._clauses:
            for match in pattern.finditer(lane.text):
                worker = self._whom(match, lane.name)
                if worker is not None:
                    tick = lane.when(match.end("what") - 1)
                    for part in self._which(match["what"]):
                        yield Assignment(tick, lane.name, worker, part)

    def _whom(self, match: re.Match[str], speaker: str) -> str | None:
        said = match["who"]
        if said in ("I", "me"):
            return speaker
        if said.lower() == "you":
            called = match["called"]
            others = [name for name in self.names if name != speaker]
            return str(called) if called else others[0] if len(others) == 1 else None
        return said

    def _which(self, what: str) -> list[str]:
        """The parts that a list of them names, in order."""
        found: list[str] = []
        for match in self._range.finditer(what):
            low, high = self._part(match[1]), self._part(match[2])
            if low is not None and high is not None:
                found += self.parts[self.parts.index(low) : self.parts.index(high) + 1]
        for match in self._one.finditer(what):
            word = match[0].removeprefix("the ").split()[0]
            tokens = self._token.findall(match[0])
            part = self._part(word if word in _ORDINALS else tokens[-1] if tokens else "")
            found += [part] if part is not None else []
        return list(dict.fromkeys(found))

    def _part(self, named: str) -> str | None:
        """The part of that name, or of that number."""
        return self._by_name.get(named) or self._by_name.get(named.lower().lstrip("0"))
