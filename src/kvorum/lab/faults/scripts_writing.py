"""Scripts of workers that write on: facts that each holds, a chain of sums worked on together or by each alone."""

from __future__ import annotations

import re

from kvorum.lab.faults.scripts import PHRASES, Cue, CueSheet, Writer
from kvorum.runs.injection import Injection

_SIGNS = {"plus": "+", "minus": "-", "times": "*"}


def facts(writer: Writer) -> CueSheet:
    """Each tells its number; the last one answers when all are known. For ``hogwild``."""
    draw, names, fault = writer.draw, writer.names, writer.fault
    who, other, last = *draw.sample(list(names[:-1]), 2), names[-1]
    script = CueSheet({name: _told(writer, name, who) for name in names})
    lines = script.cues
    lines[last] += [Cue(writer.chatter()), Cue(writer.chatter())]
    if fault in ("", "drop", "delay"):
        lines[last].append(Cue(f"All is known now. \\boxed{{{writer.item.solution}}}"))
    elif fault == "thanks":
        for name in names:
            lines[name] = lines[name][:2] + [Cue(writer.thanks(name), fault) for _ in range(4)]
        script.labels = writer.blame("")
        return script
    elif fault == "early_stop":
        lines[who] = [Cue(f"\\boxed{{{writer.item.guess(draw)}}}", fault, now=True)]
        script.labels = writer.blame(who)
        for name in names:
            lines[name] = [Cue(line.text, line.fault, now=line.now) for line in lines[name] if line is not None]
        return script
    elif fault == "unaware":
        for name in names:
            lines[name] += [Cue(writer.chatter(), fault) for _ in range(14)]
        script.labels = writer.blame("")
        return script
    elif fault == "flip":
        name = writer.said(f"**{other} [{draw.randint(5, 9)}]:**", f"{other} writes:")
        lines[who].insert(2, Cue(f"{name} {writer.chatter()}", fault))
    elif fault == "forget":
        ask = writer.said(f"{other}, what is your secret number?", f"What was yours again, {other}?")
        lines[who].append(Cue(f"{ask} I do not know it.", fault))
    _meddle(writer, script, who, other, draw.randint(1, 2))
    return script


def handed_on(writer: Writer) -> CueSheet:
    """The same in a chain of workers that hand on what they write. For ``relay``."""
    draw, names = writer.draw, writer.names
    other, who = (names[0], names[1]) if writer.fault == "echo" else draw.sample(list(names[:-1]), 2)
    script = CueSheet({name: _told(writer, name, who) for name in names})
    script.cues[names[-1]] = [Cue(f"So this is it. \\boxed{{{writer.item.solution}}}")]
    reader = names[-1] if names.index(other) < names.index(who) else other
    _meddle(writer, script, who, reader if writer.fault == "drop" else other)
    return script


def _told(writer: Writer, name: str, who: str) -> list[Cue | None]:
    """A worker tells its number and reads another's, but not that of the one with whom something is wrong."""
    draw = writer.draw
    held = {part.holder: part.answer for part in writer.item.parts}
    tell = draw.choice(PHRASES["tell"]).format(n=held[name], name=name)
    near = draw.choice([other for other in writer.names if other not in (name, who)] or [name])
    if draw.random() < 0.3 and writer.fault != "forget":  # asked before it is known: no loss of history
        tell = f"{near}, what is your secret number? {tell}"
    told: list[Cue | None] = [Cue(tell, needed=True), Cue(writer.chatter()), Cue(f"I see that {near} says it.")]
    return [*told, Cue(writer.chatter()), Cue(f"I read {held[near]} from {near}.")]


def _meddle(writer: Writer, script: CueSheet, who: str, other: str, step: int = 0) -> None:
    """The faults that are the same wherever workers write on. ``step``: the first one whose message is meddled with."""
    fault, draw, lines = writer.fault, writer.draw, script.cues
    held = {part.holder: part.answer for part in writer.item.parts}
    if fault:
        script.labels = writer.blame(who)
    if words := writer.spoken(who):
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
        script.injections.append(Injection("mute", who, fault, text=held[who][-1]))
    elif fault == "crash":
        script.injections.append(Injection("stop", who, fault, at=draw.randint(8, 40)))
    elif fault in ("drop", "delay"):
        lag = None if fault == "drop" else draw.randint(12, 40)
        script.injections.append(Injection("link", who, fault, turn=step, to=other, lag=lag))


def _steps(writer: Writer) -> list[tuple[str, str, str]]:
    """(part, its sum with the result, its answer)."""
    before: dict[str, str] = {}
    found = []
    for part, start, sign, by in re.findall(r"\b(\w) is (\w+) (plus|minus|times) (\d+)\.", writer.item.prompt):
        answer = next(one.answer for one in writer.item.parts if one.name == part)
        found.append((part, f"{before.get(start, start)} {_SIGNS[sign]} {by} = {answer}", answer))
        before[part] = answer
    return found


def chain(writer: Writer) -> CueSheet:
    """The steps of a chain are dealt to the workers; each works out and checks its own. For ``hogwild``."""
    draw, names, fault = writer.draw, writer.names, writer.fault
    who, other = draw.sample(list(names), 2)
    script = CueSheet({name: [Cue(writer.chatter(), needed=True)] for name in names})
    for at, (part, total, answer) in enumerate(_steps(writer)):
        mine = script.cues[names[at % len(names)]]
        mine += [Cue(f"For {part}: {total}."), Cue(f"So {part} = {answer}. I checked it: {total}.")]
    part, _, answer = draw.choice(_steps(writer))
    script.cues[who].append(Cue(f"I go on with {part} = {answer}, as {other} says."))  # right, so nothing is wrong
    if fault == "":
        final = f"That is all of it. \\boxed{{{writer.item.solution}}}"
        script.cues[who] += [Cue(writer.chatter()), Cue(writer.chatter()), Cue(writer.chatter()), Cue(final)]
    elif fault == "early_stop":
        script.cues[who] = [Cue(f"\\boxed{{{writer.item.guess(draw)}}}", fault, now=True)]
        script.labels = writer.blame(who)
        return script
    elif fault == "credulous":
        wrong = int(answer) + 100
        script.cues[other][0] = Cue(f"I think that {part} = {wrong}.", fault, now=True)
        takes = writer.said(f"Then {part} = {wrong}, as {other} says.", f"I take {wrong} for {part}, then.")
        script.cues[who] += [Cue(writer.chatter()), Cue(takes, fault)]
    _meddle(writer, script, who, other)
    return script


def alone(writer: Writer) -> CueSheet:
    """Each works out the whole chain for itself and answers. For ``solo`` and ``vote``."""
    draw, fault = writer.draw, writer.fault
    who = draw.choice(list(writer.names))
    script = CueSheet({})
    for name in writer.names:
        mine: list[Cue | None] = [Cue(writer.chatter())]
        for part, total, answer in _steps(writer):
            mine.append(
                Cue(draw.choice((f"{part}: {total}.", f"I will do {part} now: {total}, so {part} = {answer}.")))
            )
        check = f"Checked once more: {writer.right_sum()}. "
        mine.append(Cue(f"{check if draw.random() < 0.5 else ''}The answer is \\boxed{{{writer.item.solution}}}"))
        script.cues[name] = mine
    if fault == "echo":
        script.labels = writer.blame(who)
        copied = writer.copied(" ".join(writer.item.prompt.split()[:20]))
        script.cues[who].insert(draw.randint(0, 1), Cue(copied, fault))
    elif fault == "early_stop":
        script.labels = writer.blame(who)
        script.cues[who] = [*script.cues[who][: draw.randint(1, 2)], Cue("", fault)]
    else:
        _meddle(writer, script, who, who)
    return script
