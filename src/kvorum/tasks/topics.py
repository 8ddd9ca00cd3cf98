"""Lists of well-known things, such as animals or rivers: a team names as many different ones as it can.

Unlike ``lists`` there is no end of them, and nothing to work out: what counts is that nobody names what somebody has
named. What is counted are the members in ``topics.toml``, so that what a model makes up counts for nothing. The topics
are those of ``benchmarks/copying.py``; none of them is trained on (``lab/training/list_topics.toml``).
"""

from __future__ import annotations

import random
import tomllib
from pathlib import Path

from kvorum.tasks.item import Item
from kvorum.tasks.scoring import AnswerPart, Score, normalised, split

TOPICS: dict[str, list[str]] = {
    topic: [member.strip() for member in members.replace("\n", " ").split(",")]
    for topic, members in tomllib.loads(Path(__file__).with_name("topics.toml").read_text(encoding="utf-8")).items()
}
PROMPT = "Write a list of different {}, one on each line and nothing else. Nothing may be listed twice."


def topics(seed: int, names: tuple[str, ...], *, wanted: int = 12) -> Item:
    """Topic ``seed`` modulo twelve.

    Soft score of an answer: different members, at most ``wanted``, over the larger of ``wanted`` and what was named.
    What a whole team named is the measure ``named``.
    """
    names_of = list(TOPICS)
    topic = names_of[seed % len(names_of)]
    known = {normalised(member): member for member in TOPICS[topic]}

    def score(answer: str | None) -> Score:
        entries = [normalised(entry.strip("-*•. 0123456789")) for entry in split(answer or "")]
        right = [known[entry] for entry in dict.fromkeys(entries) if entry in known][:wanted]
        soft = len(right) / max(wanted, len(entries))
        return Score(soft, soft == 1.0, dict.fromkeys(right, 1.0))

    def guess(draw: random.Random) -> str:
        return "\n".join(draw.sample([member for members in TOPICS.values() for member in members], wanted))

    parts = [AnswerPart(member, member) for member in TOPICS[topic]]
    solution = "\n".join(TOPICS[topic][:wanted])
    constant = "\n".join(TOPICS[names_of[0]][:wanted])
    return Item("topics", seed, PROMPT.format(topic), score, solution, guess, constant, parts)
