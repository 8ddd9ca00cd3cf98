"""Scripts of workers that write on: facts that each holds, a chain of sums worked on together or by each alone."""

from __future__ import annotations

import re

from kvorum.lab.faults.scripts import Line, Script, Stage
from kvorum.runs.injection import Injection

_TELL = (
    "My secret number is {n}.",
    "I am {name}, and my secret number is {n}.",
    "Listen, everybody: I have {n}.",
    "I will say it now: my secret number is {n}.",
)
_SIGNS = {"plus": "+", "minus": "-", "times": "*"}


def facts(stage: Stage) -> Script:
    """Each tells its number; the last one answers when all are known. For ``hogwild``."""
    draw, names, fault = stage.draw, stage.names, stage.fault
    who, other, last = *draw.sample(list(names[:-1]), 2), names[-1]
    script = Script({name: _told(stage, name, who) for name in names})
    lines = script.lines
    lines[last] += [Line(stage.chatter()), Line(stage.chatter())]
    if fault in ("", "drop", "delay"):
        lines[last].append(Line(f"All is known now. \\boxed{{{stage.item.solution}}}"))
    elif fault == "thanks":
        for name in names:
            lines[name] = lines[name][:2] + [Line(stage.thanks(name), fault) for _ in range(4)]
        script.labels = stage.blame("")
        return script
    elif fault == "early_stop":
        lines[who] = [Line(f"\\boxed{{{stage.item.guess(draw)}}}", fault, now=True)]
        script.labels = stage.blame(who)
        for name in names:
            lines[name] = [Line(line.text, line.fault, now=line.now) for line in lines[name] if line is not None]
        return script
    elif fault == "unaware":
        for name in names:
            lines[name] += [Line(stage.chatter(), fault) for _ in range(14)]
        script.labels = stage.blame("")
        return script
    elif fault == "flip":
        name = stage.said(f"**{other} [{draw.randint(5, 9)}]:**", f"{other} writes:")
        lines[who].insert(2, Line(f"{name} {stage.chatter()}", fault))
    elif fault == "forget":
        ask = stage.said(f"{other}, what is your secret number?", f"What was yours again, {other}?")
        lines[who].append(Line(f"{ask} I do not know it.", fault))
    _meddle(stage, script, who, other, draw.randint(1, 2))
    return script


def handed_on(stage: Stage) -> Script:
    """The same in a chain of workers that hand on what they write. For ``relay``."""
    draw, names = stage.draw, stage.names
    other, who = (names[0], names[1]) if stage.fault == "echo" else draw.sample(list(names[:-1]), 2)
    script = Script({name: _told(stage, name, who) for name in names})
    script.lines[names[-1]] = [Line(f"So this is it. \\boxed{{{stage.item.solution}}}")]
    reader = names[-1] if names.index(other) < names.index(who) else other
    _meddle(stage, script, who, reader if stage.fault == "drop" else other)
    return script


def _told(stage: Stage, name: str, who: str) -> list[Line | None]:
    """A worker tells its number and reads another's, but not that of the one with whom something is wrong."""
    draw = stage.draw
    held = {part.holder: part.answer for part in stage.item.parts}
    tell = draw.choice(_TELL).format(n=held[name], name=name)
    near = draw.choice([other for other in stage.names if other not in (name, who)] or [name])
    if draw.random() < 0.3 and stage.fault != "forget":  # asked before it is known: no loss of history
        tell = f"{near}, what is your secret number? {tell}"
    told: list[Line | None] = [Line(tell, needed=True), Line(stage.chatter()), Line(f"I see that {near} says it.")]
    return [*told, Line(stage.chatter()), Line(f"I read {held[near]} from {near}.")]


def _meddle(stage: Stage, script: Script, who: str, other: str, step: int = 0) -> None:
    """The faults that are the same wherever workers write on. ``step``: the first one whose message is meddled with."""
    fault, draw, lines = stage.fault, stage.draw, script.lines
    held = {part.holder: part.answer for part in stage.item.parts}
    if fault:
        script.labels = stage.blame(who)
    if words := stage.spoken(who):
        at = 0 if fault == "unverified" else draw.randint(1, len(lines[who]) - 1)
        lines[who].insert(at, Line(words, fault))
    elif fault == "echo":
        copied = f"{stage.chatter()} {stage.chatter()}"
        lines[other].insert(1, Line(copied, needed=True))
        lines[who] += [Line(stage.chatter()), Line(stage.copied(copied), fault)]
    elif fault == "lie":
        false = str(int(held[who]) + draw.choice((-7, -3, 4, 8)))
        lines[who][0] = Line(stage.said(f"My secret number is {false}.", f"Mine is {false}."), fault, now=True)
    elif fault == "withhold":
        lines[who][0] = Line(stage.chatter())
        script.more.append(Injection("mute", who, fault, text=held[who][-1]))
    elif fault == "crash":
        script.more.append(Injection("stop", who, fault, at=draw.randint(8, 40)))
    elif fault in ("drop", "delay"):
        lag = None if fault == "drop" else draw.randint(12, 40)
        script.more.append(Injection("link", who, fault, turn=step, to=other, lag=lag))


def _steps(stage: Stage) -> list[tuple[str, str, str]]:
    """(part, its sum with the result, its answer)."""
    before: dict[str, str] = {}
    found = []
    for part, start, sign, by in re.findall(r"\b(\w) is (\w+) (plus|minus|times) (\d+)\.", stage.item.prompt):
        answer = next(one.answer for one in stage.item.parts if one.name == part)
        found.append((part, f"{before.get(start, start)} {_SIGNS[sign]} {by} = {answer}", answer))
        before[part] = answer
    return found


def chain(stage: Stage) -> Script:
    """The steps of a chain are dealt to the workers; each works out and checks its own. For ``hogwild``."""
    draw, names, fault = stage.draw, stage.names, stage.fault
    who, other = draw.sample(list(names), 2)
    script = Script({name: [Line(stage.chatter(), needed=True)] for name in names})
    for at, (part, total, answer) in enumerate(_steps(stage)):
        mine = script.lines[names[at % len(names)]]
        mine += [Line(f"For {part}: {total}."), Line(f"So {part} = {answer}. I checked it: {total}.")]
    part, _, answer = draw.choice(_steps(stage))
    script.lines[who].append(Line(f"I go on with {part} = {answer}, as {other} says."))  # right, so nothing is wrong
    if fault == "":
        final = f"That is all of it. \\boxed{{{stage.item.solution}}}"
        script.lines[who] += [Line(stage.chatter()), Line(stage.chatter()), Line(stage.chatter()), Line(final)]
    elif fault == "early_stop":
        script.lines[who] = [Line(f"\\boxed{{{stage.item.guess(draw)}}}", fault, now=True)]
        script.labels = stage.blame(who)
        return script
    elif fault == "credulous":
        wrong = int(answer) + 100
        script.lines[other][0] = Line(f"I think that {part} = {wrong}.", fault, now=True)
        takes = stage.said(f"Then {part} = {wrong}, as {other} says.", f"I take {wrong} for {part}, then.")
        script.lines[who] += [Line(stage.chatter()), Line(takes, fault)]
    _meddle(stage, script, who, other)
    return script


def alone(stage: Stage) -> Script:
    """Each works out the whole chain for itself and answers. For ``solo`` and ``vote``."""
    draw, fault = stage.draw, stage.fault
    who = draw.choice(list(stage.names))
    script = Script({})
    for name in stage.names:
        mine: list[Line | None] = [Line(stage.chatter())]
        for part, total, answer in _steps(stage):
            mine.append(
                Line(draw.choice((f"{part}: {total}.", f"I will do {part} now: {total}, so {part} = {answer}.")))
            )
        check = f"Checked once more: {stage.right_sum()}. "
        mine.append(Line(f"{check if draw.random() < 0.5 else ''}The answer is \\boxed{{{stage.item.solution}}}"))
        script.lines[name] = mine
    if fault == "echo":
        script.labels = stage.blame(who)
        copied = stage.copied(" ".join(stage.item.prompt.split()[:20]))
        script.lines[who].insert(draw.randint(0, 1), Line(copied, fault))
    elif fault == "early_stop":
        script.labels = stage.blame(who)
        script.lines[who] = [*script.lines[who][: draw.randint(1, 2)], Line("", fault)]
    else:
        _meddle(stage, script, who, who)
    return script
