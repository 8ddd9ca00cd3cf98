"""Everyday tasks that sort things into kinds."""

from __future__ import annotations

import random
from collections.abc import Sequence

from kvorum.tasks.everyday import words
from kvorum.tasks.everyday.kind import Job, each, numbered, one


def _labels(task: str, texts: Sequence[str], asked: str, options: Sequence[str], right: Sequence[str]) -> Job:
    """Each text gets one of the options. ``asked`` is the question of one text, which stands for ``{}``."""
    prompt = f"{task} One on each line with its number, the label alone.\n{numbered(texts)}"
    choices = [(asked.format(text), options) for text in texts]
    return Job(prompt, each(right), numbered(right), choices=choices)


def reviews(draw: random.Random) -> Job:
    """Eight reviews: positive or negative."""
    chosen = draw.sample([*words.PRAISE, *words.BLAME], 8)
    right = ["positive" if text in words.PRAISE else "negative" for text in chosen]
    task = "Label each review as positive or negative."
    asked = "Is this review positive or negative?\n\n{}"
    return _labels(task, chosen, asked, ("positive", "negative"), right)


def spam(draw: random.Random) -> Job:
    """Six messages: spam or not."""
    chosen = draw.sample([*words.SPAM, *words.HAM], 6)
    right = ["yes" if text in words.SPAM else "no" for text in chosen]
    task = "Is the message spam? Answer yes or no."
    return _labels(task, chosen, "Is this message spam?\n\n{}", ("yes", "no"), right)


def topics(draw: random.Random) -> Job:
    """Six headlines: sport, politics, weather or technology."""
    known = {text: topic for topic, texts in words.HEADLINES.items() for text in texts}
    chosen = draw.sample(sorted(known), 6)
    options = tuple(words.HEADLINES)
    task = f"Label each headline as one of: {', '.join(options)}."
    asked = f"Which of {', '.join(options)} is this headline about?\n\n{{}}"
    return _labels(task, chosen, asked, options, [known[text] for text in chosen])


def department(draw: random.Random) -> Job:
    """Where a customer's message belongs."""
    messages = {
        "billing": "I was charged twice for my order in {}.",
        "delivery": "My parcel should have come to {} last week and is nowhere to be found.",
        "technical": "Since the update the app crashes as soon as I choose {} as my town.",
        "jobs": "I would like to apply for the open position in your shop in {}.",
    }
    right = draw.choice(sorted(messages))
    text = messages[right].format(draw.choice(words.TOWNS))
    asked = f"Which department should answer: {', '.join(messages)}?"
    prompt = f"A customer writes: {text}\n\n{asked}\nAnswer with one word."
    choices = [(f"A customer writes: {text}\n\n{asked}", tuple(messages))]
    return Job(prompt, one(right), right, choices=choices)


def holds(draw: random.Random) -> Job:
    """Six statements about a text: true or false."""
    rooms = draw.sample(("kitchen", "office", "garage", "attic", "cellar", "hall"), 3)
    days = draw.sample(words.DAYS, 3)
    people = draw.sample(words.FIRST, 3)
    facts = list(zip(people, rooms, days, strict=True))
    text = " ".join(f"{name} paints the {room} on {day}." for name, room, day in facts)
    said, right = [], []
    for at in range(6):
        name, room, day = facts[at % 3]
        true = draw.random() < 0.5
        if at < 3:
            said.append(f"{name} paints the {room if true else rooms[(rooms.index(room) + 1) % 3]}.")
        else:
            said.append(f"The {room} is painted on {day if true else days[(days.index(day) + 1) % 3]}.")
        right.append("yes" if true else "no")
    prompt = (
        f"{text}\n\nIs each statement true? Answer yes or no, one on each line with its number, the word alone.\n"
        f"{numbered(said)}"
    )
    choices = [(f"Is this true? {one_said}", ("yes", "no")) for one_said in said]
    return Job(prompt, each(right), numbered(right), text=text, choices=choices)
