"""The catalogue of injected faults: what each does, which failure it makes true, and what may follow from it.

Where each makes sense is in ``scenarios.py``, how it is put there in the scripts; the mechanism is
``kvorum.runs.injection``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kvorum.errors import UnknownName
from kvorum.wording import unknown


@dataclass(frozen=True, slots=True)
class Fault:
    """``mode``: the failure that a run with it has by construction. ``also``: failures that may be true then as well,
    so that finding them in such a run counts neither for nor against a detector."""

    name: str
    mode: str
    what: str
    also: tuple[str, ...] = ()


_ALL = (
    Fault("drop", "drop", "messages of one worker never get to another", ("premature", "unaware")),
    Fault("delay", "delay", "messages of one worker get to another late", ("premature", "unaware")),
    Fault("lie", "lie", "a false claim about what only the speaker knows, or was told", ("withholding", "premature")),
    Fault("equivocate", "equivocation", "different claims to different readers", ("mismatch", "premature")),
    Fault("crash", "crash", "no more ticks, without a word", ("withholding", "premature")),
    Fault("echo", "echo", "what was heard is given back"),
    Fault("flip", "flip", "the other role's words, or a step under another's name", ("echo",)),
    Fault("flake", "flake", "a promise and nothing else"),
    Fault("loop", "repetition", "one worker says the same again and again", ("echo", "loop", "unaware")),
    Fault("thanks", "loop", "everybody thanks everybody", ("repetition", "echo", "unaware")),
    Fault("early_stop", "premature", "an end, an answer or a vote to stop before its time", ("withholding",)),
    Fault("unaware", "unaware", "no end though all is known or agreed"),
    Fault("withhold", "withholding", "a fact that others need is never told", ("premature", "mismatch")),
    Fault("unverified", "no_verification", "a claim to have checked, without a check"),
    Fault("false_check", "false_verification", "a check whose result is wrong"),
    Fault("credulous", "accepts_unverified", "another's wrong claim is taken over unchecked"),
    Fault("ignore", "ignored", "what was heard is acted against", ("withholding",)),
    Fault("mismatch", "mismatch", "an act that is not the one declared", ("ignored",)),
    Fault("forget", "history_loss", "asks for what it was told"),
    Fault("late", "late_strategy", "a strategy that is announced in the last round"),
)

FAULTS: Mapping[str, Fault] = {fault.name: fault for fault in _ALL}


def find(name: str) -> Fault:
    """The fault of that name. Raises UnknownName."""
    if name not in FAULTS:
        raise UnknownName(unknown("fault", name, FAULTS))
    return FAULTS[name]
