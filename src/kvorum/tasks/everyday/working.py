"""Everyday tasks that need a thought: sums, plans, times, patterns, queries, faults in code."""

from __future__ import annotations

import random
import re
import sqlite3
from contextlib import closing, suppress

from kvorum.tasks.everyday import words
from kvorum.tasks.everyday.kind import Job, each, numbered, one, says


def sums(draw: random.Random) -> Job:
    """Four sums."""
    pairs = [(draw.randint(12, 99), draw.randint(12, 99)) for _ in range(4)]
    asked = [f"{a} {mark} {b}" for (a, b), mark in zip(pairs, "+-*+", strict=True)]
    right = [str((a + b, a - b, a * b, a + b)[at]) for at, (a, b) in enumerate(pairs)]
    prompt = f"Compute each; one result on each line with its number, the figure alone.\n{numbered(asked)}"
    questions = [f"What is {what}?" for what in asked]
    return Job(prompt, each(right, questions), numbered(right), questions=questions)


def shopping(draw: random.Random) -> Job:
    """What a purchase costs and what is given back."""
    (first, second), paid = draw.sample(words.FRUIT, 2), 50
    few, price, many, other = draw.randint(2, 5), draw.randint(2, 4), draw.randint(2, 6), draw.randint(2, 4)
    right = str(paid - few * price - many * other)
    prompt = (
        f"I buy {few} kg of {first} at {price} euros per kg and {many} kg of {second} at {other} euros per kg and pay "
        f"with a note of {paid} euros. How much do I get back? End with a line that has the number alone."
    )
    return Job(prompt, one(right), right)


def steps(draw: random.Random) -> Job:
    """Five steps in an order that what each one needs allows."""
    names = draw.sample(("paint", "plan", "clean", "build", "order", "test"), 5)
    needs = {names[at]: names[draw.randrange(at)] for at in range(1, 5)}
    told = draw.sample(sorted(needs), len(needs))
    said = " ".join(f"{step} needs {needs[step]} first." for step in told)

    def check(answer: str) -> float:
        lines = [line for line in answer.casefold().splitlines() if line.strip()]
        given = [word for word in re.findall(r"[a-z]+", lines[-1] if lines else "") if word in names]
        in_order = all(
            given.index(need) < given.index(step) for step, need in needs.items() if {step, need} <= {*given}
        )
        return float(sorted(given) == sorted(names) and in_order)

    prompt = (
        f"Put these steps into an order in which they can be done: {', '.join(sorted(names))}. {said} "
        "End with one line: the five steps with commas between."
    )
    return Job(prompt, check, ", ".join(names))


def train(draw: random.Random) -> Job:
    """When a train arrives."""
    hour, minute, takes = draw.randint(6, 18), draw.choice((5, 10, 25, 40, 50)), draw.randint(35, 170)
    at = hour * 60 + minute + takes
    right = f"{at // 60:02d}:{at % 60:02d}"
    prompt = (
        f"A train leaves at {hour:02d}:{minute:02d} and takes {takes} minutes. When does it arrive? End with a line "
        "that has the time alone, as HH:MM."
    )
    return Job(prompt, one(right), right)


def free_hour(draw: random.Random) -> Job:
    """The first hour in which three people are free."""
    hours = list(range(9, 17))
    right = draw.choice(hours[2:])
    busy = [sorted(draw.sample([hour for hour in hours if hour != right], 3)) for _ in range(3)]
    for at, hour in enumerate(hour for hour in hours if hour < right):
        if not any(hour in one_busy for one_busy in busy):
            busy[at % 3] = sorted({*busy[at % 3], hour})
    people = draw.sample(words.FIRST, 3)
    said = " ".join(
        f"{name} is busy at {', '.join(map(str, one_busy))}." for name, one_busy in zip(people, busy, strict=True)
    )
    prompt = (
        f"Meetings take an hour and begin at 9, 10, 11, 12, 13, 14, 15 or 16. {said} What is the first hour at which "
        "all three are free? End with a line that has the number alone."
    )
    return Job(prompt, one(str(right)), str(right))


def names(draw: random.Random) -> Job:
    """Ten different first names with a letter."""
    letter = draw.choice("ABCDEJKLMRST")

    def check(answer: str) -> float:
        lines = [re.sub(r"^\W*(?:\d+[).])?\W*", "", line).strip() for line in answer.splitlines() if line.strip()]
        fine = {line for line in lines if re.fullmatch(rf"{letter}[a-zé]+", line)}
        return float(len(lines) == 10 and len(fine) == 10)

    known = [f"{letter}{ending}" for ending in ("a", "e", "i", "o", "u", "an", "en", "in", "on", "un")]
    prompt = f"Write ten different first names that begin with {letter}, one on each line, nothing else."
    return Job(prompt, check, "\n".join(known))


def pattern(draw: random.Random) -> Job:
    """A regular expression, tried on texts that it must match or not."""
    kind, right, fine, wrong = draw.choice(
        (
            ("a date as YYYY-MM-DD", r"\d{4}-\d{2}-\d{2}", ("2026-11-29", "1999-01-02"), ("29.11.2026", "2026-1-2")),
            ("a time as HH:MM", r"\d{2}:\d{2}", ("07:45", "23:10"), ("7.45", "745", "12:5")),
            ("a German post code (five digits)", r"\d{5}", ("10115", "80331"), ("1011", "101155", "D1011")),
            (
                "a hex colour such as #1a2b3c",
                r"#[0-9a-fA-F]{6}",
                ("#1a2b3c", "#FFFFFF"),
                ("1a2b3c", "#12345", "#x2345g"),
            ),
        )
    )

    def check(answer: str) -> float:
        fenced = re.findall(r"```\w*\n(.*?)\n```|`([^`]+)`", answer, re.DOTALL)
        text = next(("".join(found).strip() for found in fenced), answer.strip())
        try:
            matches = [re.fullmatch(text, one_text) is not None for one_text in (*fine, *wrong)]  # short ones
        except (re.error, OverflowError, RecursionError):
            return 0.0
        return float(matches == [True] * len(fine) + [False] * len(wrong))

    prompt = f"Write a regular expression (as Python has them) that the whole of a text matches if it is {kind}. The "
    return Job(f"{prompt}expression alone, in backquotes.", check, f"`{right}`")


def query(draw: random.Random) -> Job:
    """A query in SQL, tried on a small table."""
    rows = [(name, draw.choice(words.TOWNS[:3]), draw.randint(18, 70)) for name in words.FIRST]
    town, age = draw.choice(rows)[1], draw.randint(25, 40)
    asked, right = draw.choice(
        (
            (f"the number of people in {town}", f"SELECT COUNT(*) FROM people WHERE town = '{town}'"),
            (
                f"the names of people older than {age}, sorted",
                f"SELECT name FROM people WHERE age > {age} ORDER BY name",
            ),
            ("the name of the oldest person", "SELECT name FROM people ORDER BY age DESC LIMIT 1"),
            ("each town with its number of people", "SELECT town, COUNT(*) FROM people GROUP BY town"),
        )
    )
    ordered = "ORDER BY" in right

    def result(text: str) -> list[tuple[str | int, ...]]:
        with closing(sqlite3.connect(":memory:")) as base:
            base.execute("CREATE TABLE people (name TEXT, town TEXT, age INTEGER)")
            base.executemany("INSERT INTO people VALUES (?, ?, ?)", rows)
            reading = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION)
            base.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in reading else sqlite3.SQLITE_DENY)
            base.set_progress_handler(lambda: 1, 1_000_000)  # a query that never ends is stopped
            found = base.execute(text).fetchmany(1000)
        return found if ordered else sorted(found)

    def check(answer: str) -> float:
        fenced = re.findall(r"```(?:sql)?\s*\n(.*?)```", answer, re.DOTALL | re.IGNORECASE)
        with suppress(sqlite3.Error, sqlite3.Warning, TypeError):
            return float(result((fenced or [answer])[-1].strip().rstrip(";")) == result(right))
        return 0.0

    prompt = f"The table people has the columns name, town, age. Write one SQLite query that gives {asked}. SQL alone."
    return Job(prompt, check, right)


def fault(draw: random.Random) -> Job:
    """Which line of a short function is wrong."""
    lines, wrong = draw.choice(
        (
            (
                (
                    "def mean(values):",
                    "    total = 0",
                    "    for value in values:",
                    "        total = value",
                    "    return total / len(values)",
                ),
                4,
            ),
            (("def last(values):", "    if not values:", "        return None", "    return values[len(values)]"), 4),
            (("def is_even(number):", "    rest = number % 2", "    return rest == 1"), 3),
            (
                (
                    "def largest(values):",
                    "    best = values[0]",
                    "    for value in values:",
                    "        if value < best:",
                    "            best = value",
                    "    return best",
                ),
                4,
            ),
            (("def count_words(text):", "    words = text.split()", "    return len(text)"), 3),
        )
    )
    code = "\n".join(f"{at}  {line}" for at, line in enumerate(lines, 1))
    name = draw.choice(words.FIRST)
    prompt = f"{name} wrote this function; one of its lines is wrong:\n\n{code}\n\nWhich? Answer with its number alone."
    return Job(prompt, one(str(wrong)), str(wrong))


def count(draw: random.Random) -> Job:
    """How often a word stands in a list."""
    kinds = draw.sample(words.FRUIT, 3)
    basket = [draw.choice(kinds) for _ in range(12)]
    right = str(basket.count(kinds[0]))

    def check(answer: str) -> float:
        return float(says(answer.splitlines()[-1] if answer.strip() else "", right))

    prompt = f"How often does {kinds[0]} stand in this list? Answer with the number alone.\n\n{', '.join(basket)}"
    return Job(prompt, check, right)
