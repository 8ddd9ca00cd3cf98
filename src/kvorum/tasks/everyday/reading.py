"""Everyday tasks that read a text: questions about it, forms and lists filled from it, what it comes to."""

from __future__ import annotations

import json
import random

from kvorum.jsontypes import Json
from kvorum.tasks.everyday import words
from kvorum.tasks.everyday.kind import Job, each, json_of, numbered, object_schema, one, says, values_are

TEXT: Json = {"type": "string"}
NUMBER: Json = {"type": "number"}
WHOLE: Json = {"type": "integer"}


def questions(draw: random.Random) -> Job:
    """Six questions about a report on six branches of a library."""
    towns, leads = draw.sample(words.TOWNS, 6), draw.sample(words.FIRST, 6)
    facts = [
        (town, f"{lead} {draw.choice(words.LAST)}", draw.randrange(9_000, 60_000), draw.randrange(28, 56), event)
        for town, lead, event in zip(
            towns,
            leads,
            ("a chess night", "a book fair", "a puppet play", "a poetry hour", "a coding club", "a repair day"),
            strict=True,
        )
    ]
    text = "Report of the library board\n\n" + "\n".join(
        f"{town}: {lead} reported {visits} visitors. The branch was open for {hours} hours a week. Of its "
        f"events, {event} drew the most guests."
        for town, lead, visits, hours, event in facts
    )
    kinds = draw.sample((0, 1, 2, 3) * 2, 6)
    asked, right = [], []
    for kind, (town, lead, visits, hours, event) in zip(kinds, draw.sample(facts, 6), strict=True):
        asked.append(
            (
                f"Who leads the branch in {town}?",
                f"How many visitors did {town} report?",
                f"How many hours a week was {town} open?",
                f"Which event drew the most guests in {town}?",
            )[kind]
        )
        right.append((lead.split()[1], str(visits), str(hours), event.split(maxsplit=1)[1])[kind])
    prompt = f"{text}\n\nAnswer each question on a line of its own, with its number.\n{numbered(asked)}"
    return Job(prompt, each(right, asked), numbered(right), text=text, questions=asked)


def invoice(draw: random.Random) -> Job:
    """An invoice to JSON with seven keys."""
    firm, buyer, good = draw.choice(words.FIRMS), f"{draw.choice(words.FIRST)} {draw.choice(words.LAST)}", ""
    good, count, price = draw.choice(words.GOODS), draw.randint(2, 9), draw.randint(8, 90)
    day, month = draw.randint(1, 28), draw.randrange(12)
    number = f"R-{draw.randrange(1000, 9999)}"
    text = (
        f"{firm}\nInvoice {number}\n{day} {words.MONTHS[month]} 2026\nTo: {buyer}, {draw.choice(words.TOWNS)}\n\n"
        f"{count} x {good} at {price}.50 each\nTotal due: {count * (2 * price + 1) / 2:.2f} EUR\nPayable in 14 days."
    )
    wanted: dict[str, Json] = {
        "number": number,
        "seller": firm,
        "buyer": buyer,
        "item": good,
        "quantity": count,
        "unit_price": price + 0.5,
        "total": count * (2 * price + 1) / 2,
    }
    types = {"quantity": WHOLE, "unit_price": NUMBER, "total": NUMBER}
    schema = object_schema({key: types.get(key, TEXT) for key in wanted})
    prompt = f"{text}\n\nWrite this invoice as one JSON object with the keys {', '.join(wanted)}. JSON alone."
    return Job(prompt, values_are(wanted), json.dumps(wanted), text=text, schema=schema)


def contact(draw: random.Random) -> Job:
    """A signature of a mail to a form; what is not there is null."""
    first, last, firm = draw.choice(words.FIRST), draw.choice(words.LAST), draw.choice(words.FIRMS)
    phone = f"+44 20 {draw.randrange(1000, 9999)} {draw.randrange(100, 999)}"
    fax = draw.random() < 0.5
    mail = f"{first.lower()}.{last.lower()}@example.org"
    text = (
        f"Thanks again for the call, I will send the drawings on Friday.\n\nBest wishes,\n{first} {last}\nHead of "
        f"Purchasing, {firm}\nT {phone}\n{f'F {phone}9' + chr(10) if fax else ''}{mail}"
    )
    wanted: dict[str, Json] = {
        "name": f"{first} {last}",
        "company": firm,
        "role": "Head of Purchasing",
        "email": mail,
        "phone": phone,
        "fax": f"{phone}9" if fax else None,
    }
    schema = object_schema({key: {"type": ["string", "null"]} if key == "fax" else TEXT for key in wanted})
    prompt = (
        f"{text}\n\nFill in a JSON object with the keys {', '.join(wanted)}; null where nothing is said. JSON alone."
    )
    return Job(prompt, values_are(wanted), json.dumps(wanted), text=text, schema=schema)


def orders(draw: random.Random) -> Job:
    """An order of several things to a list of objects."""
    goods = draw.sample(words.GOODS, 3)
    lines = [(good, draw.randint(1, 12)) for good in goods]
    said = ", ".join(f"{count} of the {good} type" for good, count in lines)
    text = f"Hello, please send us {said}. Deliver to {draw.choice(words.TOWNS)}. Many thanks!"
    wanted: dict[str, Json] = {"lines": [{"item": good, "count": count} for good, count in lines]}
    item: Json = {"type": "string", "description": "what is ordered, without the word type"}
    schema = object_schema({"lines": {"type": "array", "items": object_schema({"item": item, "count": WHOLE})}})
    prompt = (
        f'{text}\n\nWrite what is ordered as JSON: {{"lines": [{{"item": ..., "count": ...}}, ...]}}, the items '
        "without the word type, in the order of the text. JSON alone."
    )
    return Job(prompt, values_are(wanted), json.dumps(wanted), text=text, schema=schema)


def emails(draw: random.Random) -> Job:
    """All mail addresses of a text, a line each."""
    people = draw.sample(words.FIRST, 4)
    mails = [f"{name.lower()}{draw.randint(1, 99)}@example.com" for name in people]
    text = (
        f"For tickets write to {mails[0]}, for the hall to {mails[1]}. {people[2]} ({mails[2]}) looks after the "
        f"stands; if nobody answers, try {mails[3]} or call 555-0199."
    )

    def check(answer: str) -> float:
        lines = [line.strip().lstrip("-* ") for line in answer.splitlines() if line.strip()]
        return float(sorted(lines) == sorted(mails))

    prompt = f"{text}\n\nList all e-mail addresses of this text, one on each line, and nothing else."
    return Job(prompt, check, "\n".join(mails))


def summary(draw: random.Random) -> Job:
    """A notice in at most thirty words that still say what matters."""
    town, day, hour = draw.choice(words.TOWNS), draw.choice(words.DAYS), draw.randint(2, 9)
    laid = draw.randint(1921, 1968)
    text = (
        f"The water works of {town} inform all households that the main pipe below the market has to be replaced, "
        f"since it was laid in {laid} and has leaked three times since spring. For this the water will be turned off "
        f"on {day} from {hour} in the morning until the early afternoon. Please fill some bottles before. "
        "Afterwards it may look brown for a few minutes; let it run. The works apologise for the trouble."
    )

    def check(answer: str) -> float:
        short = 0 < len(answer.split()) <= 30
        return float(short and says(answer, day) and says(answer, "water"))

    return Job(
        f"{text}\n\nSummarise this for the neighbours in at most 30 words. Say what happens and on which day.",
        check,
        f"The water in {town} is turned off on {day} from {hour}.",
        text=text,
    )


def offers(draw: random.Random) -> Job:
    """Two offers: which is cheaper, and by how much."""
    first, second = draw.sample(words.FIRMS, 2)
    count, price = draw.randint(3, 9), draw.randint(11, 40)
    fee, lower = draw.randint(5, 20), draw.randint(1, 3)
    one_sum, other_sum = count * price, count * (price - lower) + fee
    if one_sum == other_sum:
        other_sum, fee = other_sum + 1, fee + 1
    cheaper, less = (first, other_sum - one_sum) if one_sum < other_sum else (second, one_sum - other_sum)
    text = (
        f"{first}: {count} boxes at {price} euros each, delivery free.\n"
        f"{second}: {count} boxes at {price - lower} euros each, plus {fee} euros for the delivery."
    )

    def check(answer: str) -> float:
        lines = [line for line in answer.splitlines() if line.strip()]
        return float(bool(lines) and says(lines[-1], cheaper) and says(lines[-1], str(less)))

    return Job(
        f"{text}\n\nWhich offer is cheaper in total, and by how many euros? End with one line: FIRM, EUROS.",
        check,
        f"{cheaper}, {less}",
    )


def table(draw: random.Random) -> Job:
    """Lines with commas to a JSON list."""
    rows = [(name, draw.randint(18, 70), draw.choice(words.TOWNS)) for name in draw.sample(words.FIRST, 3)]
    text = "name,age,town\n" + "\n".join(f"{name},{age},{town}" for name, age, town in rows)
    wanted = [{"name": name, "age": age, "town": town} for name, age, town in rows]

    def check(answer: str) -> float:
        return float(json_of(answer) == wanted)

    prompt = f"{text}\n\nWrite this table as a JSON list of objects, ages as numbers. JSON alone."
    return Job(prompt, check, json.dumps(wanted))


def when(draw: random.Random) -> Job:
    """On which weekday an appointment is that was moved."""
    at, by = draw.randrange(7), draw.randint(1, 3)
    town = draw.choice(words.TOWNS)
    text = (
        f"The inspection in {town} was planned for {words.DAYS[at]}. Because of the strike it has been moved by {by} "
        f"day{'s' * (by > 1)} to a later day."
    )
    right = words.DAYS[(at + by) % 7]
    asked = f"On which weekday is the inspection in {town} now?"
    return Job(f"{text}\n\n{asked} Answer with the weekday alone.", one(right), right, text=text)
