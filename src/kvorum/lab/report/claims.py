"""The part of a report that is about claims: which were found, which were not, and which take more items to tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kvorum.lab.report import figures
from kvorum.lab.report.page import WORDS, Picture, Piece, Table
from kvorum.lab.report.shown import chance, ends
from kvorum.lab.statistics.claims import FOUND, OPEN, OPPOSITE, Outcome
from kvorum.wording import plural

HEAD = ("claim", "first − second", "items", "needed", "difference", "95%", "p", "verdict")


def pieces(found: Sequence[Outcome]) -> list[Piece]:
    """A section; nothing where there is no claim."""
    if not found:
        return []
    several = len({one.model for one in found}) > 1
    head = [*HEAD[:1], *(["model"] * several), *HEAD[1:]]
    return ["## Claims", WORDS["claims"], summary(found), Table(head, [row(one, several) for one in found])]


def row(one: Outcome, named: bool) -> list[str]:
    """An outcome as cells below ``HEAD``; ``named``: with its model, behind the claim."""
    claim, value = one.claim, one.difference
    arms = f"{claim.first} − {claim.second}" + (f", {claim.measure}" if claim.measure != "score" else "")
    behind = f" (at {one.at})" if one.verdict != OPEN and one.at < value.n else ""
    shown = [str(value.n), str(one.needed), f"{value.value:+.2f}", ends(value), chance(one.p), one.verdict + behind]
    explored = " *(explored)*" if claim.explored else ""
    return [claim.say + explored, *([one.model] * named), arms, *shown]


def summary(found: Sequence[Outcome]) -> str:
    """How many claims ended how, in one sentence."""
    told = ", ".join(f"{count} {verdict}" for verdict, count in Counter(one.verdict for one in found).items())
    return f"Of {plural(len(found), 'claim')}: {told}."


def forest(found: Sequence[Outcome]) -> Picture:
    """All claims on scores as one picture, each with its interval."""
    shown = [one for one in found if one.claim.measure in ("score", "solved")]
    several = len({one.model for one in shown}) > 1
    labels = [f"{one.claim.say}{f' ({one.model})' if several else ''}" for one in shown]
    colours = ["C2" if one.verdict == FOUND else "C3" if one.verdict == OPPOSITE else "C7" for one in shown]
    picture = figures.labelled([one.difference for one in shown], labels, colours)
    return Picture("claims", picture, "claims on scores; green: found, red: found the other way, grey: neither")
