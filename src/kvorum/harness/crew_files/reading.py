"""A crew file, read and checked: who works, what each may say and do, in which steps, and what the answer is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from kvorum.errors import BadRequest
from kvorum.harness.crew_files.lines import Part, read_parts
from kvorum.harness.memory.policy import POLICIES
from kvorum.harness.protocols.messages import Message
from kvorum.harness.protocols.protocol import Protocol
from kvorum.harness.protocols.votes import RULES
from kvorum.jsontypes import Json
from kvorum.wording import check_known, unknown

END, OTHERWISE = "end", "otherwise"
SAID, SILENT, STOPPED = "said", "silent", "stopped"
UNDECIDED = ("tied", "short", "absent")
DECIDE = "decide"
"""Stands as ``use`` where a decision picks the skill."""
TEXT = 400
"""Characters of a text, where the file does not say how many."""
SHIPPED = ("review", "estimate", "notes")
"""Crews that come with kvorum, by name."""
_TEXT = re.compile(r"text(?: up to (\d{1,5}))?\Z")
_PLAIN: Mapping[str, Json] = {
    "number": {"type": "number"},
    "whole number": {"type": "integer"},
    "yes or no": {"type": "boolean"},
}


@dataclass(frozen=True, slots=True)
class CrewWorker:
    """``role``: what it is told that it is. ``tools``, ``skills``: names of those that it may call and use. ``use``:
    of the skills those that are on from the beginning; ``decides``: a decision picks one for the task, or none."""

    role: str
    tools: Sequence[str] = ()
    skills: Sequence[str] = ()
    use: Sequence[str] = ()
    decides: bool = False


@dataclass(frozen=True, slots=True)
class CrewStep:
    """One step: ``who`` speaks, at the same time; what they are asked; the ``message`` that each says.

    ``form``: how that is told. ``vote``: the field that is voted on, by ``rule``; "": none. ``deadline``: ticks; None:
    no limit. ``then``: which outcome leads to which step.
    """

    who: Sequence[str]
    ask: str
    message: Message
    form: str
    vote: str
    rule: str
    deadline: int | None
    then: Mapping[str, str]

    @property
    def choices(self) -> Sequence[str]:
        """What may be voted for."""
        properties = self.message.schema["properties"]
        assert isinstance(properties, Mapping)
        field = properties[self.vote]
        assert isinstance(field, Mapping)
        found = field.get("enum", ("true", "false"))
        return [str(one) for one in found] if isinstance(found, Sequence) else ()


@dataclass(frozen=True, slots=True)
class Crew:
    """What a crew file says. ``answer``: step and field, and how: "newest", "all" or "median"."""

    about: str
    channel: str
    memory: str
    workers: Mapping[str, CrewWorker]
    steps: Mapping[str, CrewStep]
    protocol: Protocol
    answer: tuple[str, str, str]


def shipped(name: str) -> str:
    """The text of a crew that comes with kvorum. Raises UnknownName."""
    check_known("crew", name, SHIPPED)
    return (files("kvorum.examples") / "crews" / f"{name}.yaml").read_text(encoding="utf-8")


def read_crew(text: str) -> Crew:
    """The crew of a file's text, or of the name of one that is shipped.

    Raises:
        BadRequest: it is none; the message has the line. UnknownName: there is no crew of that name.
    """
    if "\n" not in text.strip() and ":" not in text:
        text = shipped(text.strip())
    top = read_parts(text, "the crew file")
    keys = top.keys(("about", "channel", "memory", "workers", "start", "most", "steps", "answer"), ("workers", "steps"))
    workers = {name: _worker(part) for name, part in keys["workers"].fields().items()}
    steps = {name: _step(part, workers) for name, part in keys["steps"].fields().items()}
    for name, part in keys["steps"].fields().items():
        for target in steps[name].then.values():
            if target not in steps:
                raise part.error(f"The step {name} leads on: {unknown('step', target, [*steps, END])}")
    start = keys["start"].one_of(list(steps), "step") if "start" in keys else next(iter(steps))
    most = keys["most"].number(1, 200) if "most" in keys else 12
    try:
        protocol = Protocol({name: step.then for name, step in steps.items()}, start, most)
    except BadRequest as error:
        raise keys["steps"].error(str(error)) from None
    memory = keys["memory"].one_of(list(POLICIES), "policy") if "memory" in keys else ""
    return Crew(
        about=keys["about"].text() if "about" in keys else "",
        channel=keys["channel"].one_of(("cache", "text"), "channel") if "channel" in keys else "cache",
        memory=memory,
        workers=workers,
        steps=steps,
        protocol=protocol,
        answer=_answer(keys.get("answer"), steps),
    )


def _worker(part: Part) -> CrewWorker:
    if isinstance(part.value, str):
        return CrewWorker(part.text())
    keys = part.keys(("role", "tools", "skills", "use"), ("role",))
    tools, skills = ([one.text() for one in keys[key].items()] if key in keys else [] for key in ("tools", "skills"))
    if "use" not in keys:
        return CrewWorker(keys["role"].text(), tools, skills)
    if not skills:
        raise keys["use"].error(f"{part.name} has no skills, so that none can be on from the beginning.")
    if keys["use"].value == DECIDE:
        return CrewWorker(keys["role"].text(), tools, skills, decides=True)
    use = [one.one_of(skills, "skill") for one in keys["use"].items()]
    return CrewWorker(keys["role"].text(), tools, skills, use)


def _step(part: Part, workers: Mapping[str, CrewWorker]) -> CrewStep:
    keys = part.keys(("who", "ask", "says", "vote", "rule", "deadline", "then"), ("who", "ask", "says"))
    names = [one.one_of([*workers, "all"], "worker") for one in keys["who"].items()]
    who = list(workers) if names == ["all"] else names
    if len(set(who)) < len(who) or "all" in who:
        raise keys["who"].error(f"{part.name}.who names each worker once, or says all.")
    properties, form = {}, []
    for name, field in keys["says"].fields().items():
        properties[name], words = _field(field)
        form.append(f'"{name}": {words}')
    try:
        schema: dict[str, Json] = {"type": "object", "properties": properties, "required": list(properties)}
        message = Message.of(part.name, schema)
    except BadRequest as error:
        raise keys["says"].error(str(error)) from None
    vote = keys["vote"].one_of(list(properties), "field") if "vote" in keys else ""
    step = CrewStep(
        who=who,
        ask=keys["ask"].text(),
        message=message,
        form="{" + ", ".join(form) + "}",
        vote=vote,
        rule=keys["rule"].one_of(RULES, "rule") if "rule" in keys else "majority",
        deadline=keys["deadline"].number(1, 1_000_000) if "deadline" in keys else None,
        then={},
    )
    if vote and _kind(properties[vote]) not in ("enum", "boolean"):
        raise keys["vote"].error(f"{vote} has no choices to vote on; give it a list of them, or yes or no.")
    outcomes = [*(step.choices if vote else [SAID]), *(UNDECIDED if vote else ()), SILENT]
    then = _then(keys["then"], outcomes) if "then" in keys else {}
    return CrewStep(step.who, step.ask, message, step.form, vote, step.rule, step.deadline, then)


def _then(part: Part, outcomes: Sequence[str]) -> Mapping[str, str]:
    """Which outcome leads where; one step alone is where every outcome but silence leads."""
    if isinstance(part.value, str):
        target = part.text()
        return {} if target == END else {outcome: target for outcome in outcomes if outcome != SILENT}
    keys = part.keys([*outcomes, OTHERWISE])
    rest = keys[OTHERWISE].text() if OTHERWISE in keys else END
    found = {outcome: keys[outcome].text() if outcome in keys else rest for outcome in outcomes}
    return {outcome: target for outcome, target in found.items() if target != END}


def _field(part: Part) -> tuple[Json, str]:
    """A field's schema and how a model is told of it."""
    if not isinstance(part.value, str):
        choices: list[Json] = [one.text() for one in part.items()]
        if len(set(map(str, choices))) < max(2, len(choices)):
            raise part.error(f"{part.name} has two choices or more, each once.")
        return {"enum": choices}, " or ".join(f'"{one}"' for one in choices)
    words = part.text()
    if found := _TEXT.match(words):
        most = int(found[1] or TEXT)
        return {"type": "string", "minLength": 1, "maxLength": most}, f'"a text of at most {most} characters"'
    if words not in _PLAIN:
        there = unknown("kind of field", words, [*_PLAIN, "text", "text up to 200"], also="a list of choices")
        raise part.error(there)
    return _PLAIN[words], {"yes or no": "true or false"}.get(words, f"a {words}")


def _kind(schema: Json) -> str:
    if not isinstance(schema, Mapping):
        return ""
    return "enum" if "enum" in schema else str(schema.get("type"))


def _answer(part: Part | None, steps: Mapping[str, CrewStep]) -> tuple[str, str, str]:
    """Step, field and how; without one the first field of the last step."""
    if part is None:
        last = list(steps)[-1]
        return last, next(iter(_fields_of(steps[last]))), "newest"
    keys = {"from": part} if isinstance(part.value, str) else part.keys(("from", "as"), ("from",))
    step, dot, field = keys["from"].text().partition(".")
    if not dot:
        raise keys["from"].error("The answer is a field of a step, as in draft.text.")
    for kind, name, known in (("step", step, list(steps)), ("field", field, [])):
        known = known or list(_fields_of(steps[step]))
        if name not in known:
            raise keys["from"].error(unknown(kind, name, known))
    how = keys["as"].one_of(("newest", "all", "median"), "way") if "as" in keys else "newest"
    if how == "median" and _kind(_fields_of(steps[step])[field]) not in ("number", "integer"):
        raise keys["as"].error(f"{step}.{field} is no number, and has no median.")
    return step, field, how


def _fields_of(step: CrewStep) -> Mapping[str, Json]:
    found = step.message.schema["properties"]
    assert isinstance(found, Mapping)
    return found
