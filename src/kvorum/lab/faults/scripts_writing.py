"""Scripts of workers that write on: facts that each holds, a chain of sums worked on together or by each alone."""

from __future__ import annotations

import re
from dataclasses import replace

from kvorum.lab.faults.scripts import PHRASES, Cue, CueSheet, ScriptWriter
from kvorum.runs.injection import Injection

_SIGNS = {"plus": "+", "minus": "-", "times": "*"}


def facts(writer: ScriptWriter) -> CueSheet:
    """Each tells its number; the last one answers when all are known. For ``hogwild``."""
    draw, names, fault = writer.draw, writer.names, writer.fault
    who, other, last = *draw.sample(list(names[:-1]), 2), names[-1]
    lines = {name: _number(writer, name, who) for name in names}
    lines[last] += [Cue(writer.chatter()), Cue(writer.chatter())]
    if fault in ("", "drop", "delay"):
        lines[last].append(Cue(f"All is known now. \\boxed{{{writer.item.solution}}}"))
    elif fault == "thanks":
        for name in names:
            lines[name][2:] = [Cue(writer.thanks(name), fault) for _ in range(4)]
        return CueSheet(lines, [""])
    elif fault == "early_stop":
        lines[who] = [Cue(f"\\boxed{{{writer.item.guess(draw)}}}", fault, now=True)]
        return CueSheet({name: [replace(line, needed=False) for line in lines[name]] for name in names}, [who])
    elif fault == "unaware":
        for name in names:
            lines[name] += [Cue(writer.chatter(), fault) for _ in range(14)]
        return CueSheet(lines, [""])
    elif fault == "flip":
        name = writer.said(f"**{other} [{draw.randint(5, 9)}]:**", f"{other} writes:")
        lines[who].insert(2, Cue(f"{name} {writer.chatter()}", fault))
    elif fault == "forget":
        ask = writer.said(f"{other}, what is your secret number?", f"What was yours again, {other}?")
        lines[who].append(Cue(f"{ask} I do not know it.", fault))
    return _meddled(writer, lines, who, other, draw.randint(1, 2))


def handed_on(writer: ScriptWriter) -> CueSheet:
    """The same in a chain of workers that hand on what they write. For ``relay``."""
    draw, names = writer.draw, writer.names
    other, who = (names[0], names[1]) if writer.fault == "echo" else draw.sample(list(names[:-1]), 2)
    lines = {name: _number(writer, name, who) for name in names}
    lines[names[-1]] = [Cue(f"So this is it. \\boxed{{{writer.item.solution}}}")]
    reader = names[-1] if names.index(other) < names.index(who) else other
    return _meddled(writer, lines, who, reader if writer.fault == "drop" else other)


def _number(writer: ScriptWriter, name: str, who: str) -> list[Cue]:
    """A worker tells its number and reads another's, but not that of the one with whom something is wrong."""
    draw = writer.draw
    held = {part.holder: part.answer for part in writer.item.parts}
    tell = draw.choice(PHRASES["tell"]).format(n=held[name], name=name)
    near = draw.choice([other for other in writer.names if other not in (name, who)] or [name])
    if draw.random() < 0.3 and writer.fault != "forget":  # asked before it is known: no loss of history
        tell = f"{near}, what is your secret number? {tell}"
    lines = [Cue(tell, needed=True), Cue(writer.chatter()), Cue(f"I see that {near} says it.")]
    return [*lines, Cue(writer.chatter()), Cue(f"I read {held[near]} from {near}.")]


def _meddled(writer: ScriptWriter, lines: dict[str, list[Cue]], who: str, other: str, step: int = 0) -> CueSheet:
    """The lines, with a fault that is the same wherever workers write on. ``step``: the first one that comes late."""
    fault, draw, sheet = writer.fault, writer.draw, CueSheet(lines, [who])
    held = {part.holder: part.answer for part in writer.item.parts}
    if words := writer.spoken():
        at = 0 if fault == "unverified" else draw.randint(1, len(lines[who]) - 1)
        lines[who].insert(at, Cue(words, fault))
    elif fault == "echo":
        copied = f"{writer.chatter()} {writer.chatter()}"
        lines[other].insert(1, Cue(copied, needed=True))
        lines[who] += [Cue(writer.chatter()), Cue(writer.copied(copied), fault)]
    elif fault == "lie":
        false = str(int(held[who]) + draw.choice((-7, -3, 4, 8)))
        lines[who][0] = Cue(writer.said(f"My secret number is {false}.", f"Mine is {false}."), fault, now=True)
    elif fault == "withhold":
        lines[who][0] = Cue(writer.chatter())
        sheet.injections.append(Injection("mute", who, fault, text=held[who][-1]))
    elif fault == "crash":
        sheet.injections.append(Injection("stop", who, fault, at=draw.randint(8, 40)))
    elif fault == "drop":
        sheet.injections.append(writer.link(who, other, step))
    elif fault == "delay":
        sheet.injections.append(writer.link(who, other, step, draw.randint(12, 40)))
    return sheet


def _steps(writer: ScriptWriter) -> list[tuple[str, str, str]]:
    """(part, its sum with the result, its answer)."""
    answers = {part.name: part.answer for part in writer.item.parts}
    before: dict[str, str] = {}
    found = []
    for part, start, sign, by in re.findall(r"\b(\w) is (\w+) (plus|minus|times) (\d+)\.", writer.item.prompt):
        before[part] = answers[part]
        found.append((part, f"{before.get(start, start)} {_SIGNS[sign]} {by} = {answers[part]}", answers[part]))
    return found


def chain(writer: ScriptWriter) -> CueSheet:
    """The steps of a chain are dealt to the workers; each works out and checks its own. For ``hogwild``."""
    draw, names, fault = writer.draw, writer.names, writer.fault
    who, other = draw.sample(list(names), 2)
    lines = {name: [Cue(writer.chatter(), needed=True)] for name in names}
    steps = _steps(writer)
    for at, (part, total, answer) in enumerate(steps):
        mine = lines[names[at % len(names)]]
        mine += [Cue(f"For {part}: {total}."), Cue(f"So {part} = {answer}. I checked it: {total}.")]
    part, _, answer = draw.choice(steps)
    lines[who].append(Cue(f"I go on with {part} = {answer}, as {other} says."))  # right, so nothing is wrong
    if fault == "":
        final = f"That is all of it. \\boxed{{{writer.item.solution}}}"
        lines[who] += [Cue(writer.chatter()), Cue(writer.chatter()), Cue(writer.chatter()), Cue(final)]
    elif fault == "early_stop":
        lines[who] = [Cue(f"\\boxed{{{writer.item.guess(draw)}}}", fault, now=True)]
    elif fault == "credulous":
        wrong = int(answer) + 100
        lines[other][0] = Cue(f"I think that {part} = {wrong}.", fault, now=True)
        takes = writer.said(f"Then {part} = {wrong}, as {other} says.", f"I take {wrong} for {part}, then.")
        lines[who] += [Cue(writer.chatter()), Cue(takes, fault)]
    return _meddled(writer, lines, who, other)


def alone(writer: ScriptWriter) -> CueSheet:
    """Each works out the whole chain for itself and answers. For ``solo`` and ``vote``."""
    draw, fault = writer.draw, writer.fault
    who = draw.choice(list(writer.names))
    lines: dict[str, list[Cue]] = {}
    for name in writer.names:
        lines[name] = [Cue(writer.chatter())]
        for part, total, answer in _steps(writer):
            words = draw.choice((f"{part}: {total}.", f"I will do {part} now: {total}, so {part} = {answer}."))
            lines[name].append(Cue(words))
        check = f"Checked once more: {writer.sum()}. "
        words = f"{check if draw.random() < 0.5 else ''}The answer is \\boxed{{{writer.item.solution}}}"
        lines[name].append(Cue(words))
    if fault == "echo":
        copied = writer.copied(" ".join(writer.item.prompt.split()[:20]))
        lines[who].insert(draw.randint(0, 1), Cue(copied, fault))
        return CueSheet(lines, [who])
    if fault == "early_stop":
        lines[who][draw.randint(1, 2) :] = [Cue("", fault)]
    return _meddled(writer, lines, who, who)
