"""A dialogue of a user who instructs and an assistant who solves: its marks, and when it ends, decided from its text
alone (CAMEL, arXiv 2303.17760, and what its authors saw fail).

Avoided defects of the published code: its politeness rule resets its own counter and cannot end a chat; its end token
counts even inside an instruction; flake replies and plain repetition have no rule at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

DONE = "<CAMEL_TASK_DONE>"
INSTRUCTION, SOLUTION = "Instruction:", "Solution:"

_PROMISE = re.compile(
    r"\b(?:i\s+will|i['’]ll|i\s+shall|i\s+am\s+going\s+to|i['’]m\s+going\s+to|let\s+me|we\s+will|we['’]ll)\b",
    re.IGNORECASE,
)
_POLITE = re.compile(
    r"\b(?:thanks?|thank\s+you|you['’]re\s+welcome|welcome|good\s*bye|bye|have\s+a\s+\w+\s+day)\b", re.IGNORECASE
)
_ARTEFACT = re.compile(r"```|\\boxed|[=+*/]\s*-?\d|^\s*(?:[-*]|\d+[.)])\s+\S", re.MULTILINE)


@dataclass(slots=True)
class DialogueRules:
    """Says when a dialogue ends, turn by turn. Counters are reset by what they count being absent from a whole turn.

    ``silent``: user turns without an instruction that end it. ``flakes``: assistant turns in a row that only promise.
    ``stale``: turns in a row, of both together, that say nothing new; new is a turn of whose word triples more than
    ``novelty`` were never said, by either, and which is not mere politeness.
    """

    silent: int = 3
    flakes: int = 2
    stale: int = 4
    novelty: float = 0.2
    counts: dict[str, int] = field(default_factory=lambda: {"silent": 0, "flake": 0, "stale": 0, "echo": 0})
    _said: set[tuple[str, ...]] = field(default_factory=set)
    _instruction: str = ""

    def user(self, text: str) -> str | None:
        """The outcome that a user's turn brings: "done", "deviation" (no instructions any more), "loop", or None."""
        instructs = INSTRUCTION in text
        if DONE.strip("<>") in text and not instructs:  # models leave the brackets out
            return "done"
        self.counts["silent"] = 0 if instructs else self.counts["silent"] + 1
        self._instruction = text
        if self.counts["silent"] >= self.silent:
            return "deviation"
        return self._repeats(text)

    def assistant(self, text: str) -> str | None:
        """The outcome that an assistant's turn brings: "flipped" (it instructs), "flake", "loop", or None."""
        if INSTRUCTION in text:
            return "flipped"
        self.counts["flake"] = self.counts["flake"] + 1 if flake(text) else 0
        if self.counts["flake"] >= self.flakes:
            return "flake"
        self.counts["echo"] += echoes(text, self._instruction)
        return self._repeats(text)

    def _repeats(self, text: str) -> str | None:
        triples = _triples(text)
        new = len(triples - self._said) / len(triples) if triples else 0.0
        self._said |= triples
        old = new <= self.novelty or polite(text)
        self.counts["stale"] = self.counts["stale"] + 1 if old else 0
        return "loop" if self.counts["stale"] >= self.stale else None


def flake(text: str) -> bool:
    """A promise and nothing else: without its promises fewer than 12 words and no list, code or sum remain."""
    body = text.split(SOLUTION, 1)[-1].split("Next request", 1)[0]
    sentences = re.split(r"(?<=[.!?])\s+|\n+", body)
    rest = " ".join(sentence for sentence in sentences if not _PROMISE.search(sentence))
    return bool(_PROMISE.search(body)) and len(re.findall(r"\w+", rest)) < 12 and not _ARTEFACT.search(body)


def polite(text: str) -> bool:
    """Thanks and goodbyes and little else: at most 12 words, none of the format's."""
    short = len(re.findall(r"\w+", text)) <= 12
    return short and bool(_POLITE.search(text)) and INSTRUCTION not in text and SOLUTION not in text


def echoes(text: str, instruction: str) -> bool:
    """Whether the assistant gives the instruction back: four of five of its word triples are the instruction's."""
    mine = _triples(text.replace(SOLUTION, " ").split("Next request", 1)[0])
    return bool(mine) and len(mine & _triples(instruction.replace(INSTRUCTION, " "))) >= 0.8 * len(mine)


def word_runs(text: str, size: int = 3) -> set[tuple[str, ...]]:
    """All runs of so many neighbouring words, to see whether texts repeat each other; none in a shorter text."""
    words = re.findall(r"\w+", text.lower())
    return set(zip(*(words[at:] for at in range(size)), strict=False))


def _triples(text: str) -> set[tuple[str, ...]]:
    return word_runs(text) or word_runs(text, 2) or word_runs(text, 1)
