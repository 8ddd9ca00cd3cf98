"""Everyday tasks that bring a text into another form."""

from __future__ import annotations

import json
import random
import re
from datetime import date

from kvorum.jsontypes import Json
from kvorum.tasks.everyday import words
from kvorum.tasks.everyday.kind import Job, each, json_of, lines_are, numbered, one


def spanish(draw: random.Random) -> Job:
    """Five words into Spanish."""
    chosen = draw.sample(sorted(words.SPANISH), 5)
    right = [words.SPANISH[word] for word in chosen]
    prompt = f"Translate each word into Spanish, one on each line with its number, no article.\n{numbered(chosen)}"
    return Job(prompt, each(right), numbered(right))


def german(draw: random.Random) -> Job:
    """Three weekdays into German."""
    chosen = draw.sample(sorted(words.GERMAN), 3)
    right = [words.GERMAN[day] for day in chosen]
    prompt = f"Translate each weekday into German, one on each line with its number.\n{numbered(chosen)}"
    return Job(prompt, each(right), numbered(right))


def dates(draw: random.Random) -> Job:
    """Four dates to ISO form."""
    days = [date(draw.randint(1990, 2026), draw.randint(1, 12), draw.randint(1, 28)) for _ in range(4)]
    said = [f"{words.MONTHS[day.month - 1]} {day.day}, {day.year}" for day in days]
    right = [day.isoformat() for day in days]
    prompt = f"Write each date in the form YYYY-MM-DD, one on each line with its number.\n{numbered(said)}"
    return Job(prompt, each(right), numbered(right))


def alphabet(draw: random.Random) -> Job:
    """Six words in alphabetical order."""
    chosen = draw.sample(words.FRUIT, 6)
    prompt = f"Sort alphabetically, one word on each line, nothing else: {', '.join(chosen)}"
    return Job(prompt, lines_are(sorted(chosen)), "\n".join(sorted(chosen)))


def duplicates(draw: random.Random) -> Job:
    """A list without its repeats, in the same order."""
    kept = draw.sample(words.FRUIT, 5)
    said = list(kept)
    for word in draw.sample(kept[:3], 2):
        said.insert(draw.randint(said.index(word) + 1, len(said)), word)
    prompt = (
        "Remove the repeats from this list; keep the first of each and the order. One word a line, nothing else:\n"
        + "\n".join(said)
    )
    return Job(prompt, lines_are(kept), "\n".join(kept))


def broken_json(draw: random.Random) -> Job:
    """JSON that lacks a comma or a quote is repaired."""
    wanted: dict[str, Json] = {
        "host": draw.choice(words.TOWNS).lower().replace(" ", "-"),
        "port": draw.randrange(1024, 9999),
        "debug": draw.random() < 0.5,
        "users": [name.lower() for name in draw.sample(words.FIRST, 2)],
    }
    text = json.dumps(wanted, indent=2)
    broken = draw.choice((text.replace(",\n", "\n", 1), text.replace('"port"', "port"), text.replace("]\n}", "\n}")))

    def check(answer: str) -> float:
        return float(json_of(answer) == wanted)

    return Job(f"This JSON is broken:\n\n{broken}\n\nWrite it repaired. JSON alone.", check, text)


def template(draw: random.Random) -> Job:
    """A form letter filled in."""
    name, firm, sum_ = draw.choice(words.FIRST), draw.choice(words.FIRMS), draw.randrange(100, 900)
    day = f"{draw.randint(1, 28)} {draw.choice(words.MONTHS)}"
    letter = "Dear {NAME}, {FIRM} will pay you {SUM} euros on {DATE}. Thank you, {NAME}!"
    filled = letter
    for key, value in (("NAME", name), ("FIRM", firm), ("SUM", str(sum_)), ("DATE", day)):
        filled = filled.replace(f"{{{key}}}", value)

    def check(answer: str) -> float:
        return float(" ".join(answer.split()) == filled)

    prompt = f"{letter}\n\nFill in NAME = {name}, FIRM = {firm}, SUM = {sum_}, DATE = {day}. Write the letter alone."
    return Job(prompt, check, filled)


def bullets(draw: random.Random) -> Job:
    """A sentence of three duties as three bullets."""
    people = draw.sample(words.FIRST, 3)
    duties = draw.sample(("buys the drinks", "books the room", "brings the chairs", "writes the invitations"), 3)
    said = ", ".join(f"{name} {duty}" for name, duty in zip(people, duties, strict=True))

    def check(answer: str) -> float:
        lines = [line.strip() for line in answer.splitlines() if line.strip()]
        fine = len(lines) == 3 and all(line.startswith("- ") for line in lines)
        return float(fine and all(name in line for name, line in zip(people, lines, strict=True)))

    prompt = f"For the party {said}.\n\nWrite this as a list of exactly three lines that begin with '- ', nothing else."
    right = "\n".join(f"- {name} {duty}" for name, duty in zip(people, duties, strict=True))
    return Job(prompt, check, right)


def units(draw: random.Random) -> Job:
    """Four lengths and weights in other units."""
    kilometres, kilograms, hours, metres = (draw.randint(2, 40) for _ in range(4))
    asked = [
        f"{kilometres} kilometres in metres",
        f"{kilograms} kilograms in grams",
        f"{hours} hours in minutes",
        f"{metres} metres in centimetres",
    ]
    right = [str(kilometres * 1000), str(kilograms * 1000), str(hours * 60), str(metres * 100)]
    prompt = f"Convert; answer one on each line with its number, the figure alone.\n{numbered(asked)}"
    return Job(prompt, each(right), numbered(right))


def initials(draw: random.Random) -> Job:
    """The initials of a name of three words."""
    name = " ".join([*draw.sample(words.FIRST, 2), draw.choice(words.LAST)])
    right = "".join(word[0] for word in name.split())

    def check(answer: str) -> float:
        return one(right)(re.sub(r"(?<=\b[A-Z])\.?\s?(?=[A-Z]\b)", "", answer).replace(".", ""))

    return Job(f"What are the initials of {name}? Answer with the three letters alone.", check, right)
