"""Scripts of workers that take turns: instruct and solve, colour a graph, agree on a value."""

from __future__ import annotations

import json

from kvorum.harness.dialogue import DONE, INSTRUCTION, SOLUTION
from kvorum.lab.faults.scripts import Cue, CueSheet, Writer
from kvorum.runs.injection import Injection
from kvorum.tasks import consensus, graphs
from kvorum.tasks.agentsnet import MARK, groups, solution

ROUNDS = 3
"""Of messages on a graph."""


def dialogue(writer: Writer) -> CueSheet:
    """Three instructions and solutions, then the user says that it is done."""
    draw, fault = writer.draw, writer.fault
    user, assistant = writer.names
    asks, solves = list[Cue | None](), list[Cue | None]()
    for _ in range(3):
        asks.append(Cue(f"{INSTRUCTION} {writer.chatter()}\nInput: None"))
        thanks = "Thank you for this one. " if draw.random() < 0.3 else ""
        solved = f"{thanks}I will add it up: {writer.right_sum()}. {writer.chatter()}"
        solves.append(Cue(f"{SOLUTION} {solved}\nNext request."))
    asks.append(Cue(DONE.strip("<>")))
    script = CueSheet({user: asks, assistant: solves})
    turn = draw.randint(0, 2)
    who = assistant
    if words := writer.spoken(assistant):
        solves[0 if fault == "unverified" else turn] = Cue(f"{SOLUTION} {words}\nNext request.", fault)
    elif fault == "echo":
        said = f"{writer.chatter()} {writer.chatter()}"
        asks[turn] = Cue(f"{INSTRUCTION} {said}\nInput: None", needed=True)
        solves[turn] = Cue(f"{SOLUTION} {writer.copied(said)}\nNext request.", fault)
    elif fault == "flip":
        solves[turn] = Cue(f"{writer.said(INSTRUCTION, 'What you do next is this:')} {writer.chatter()}", fault)
    elif fault == "thanks":
        who = ""
        asks[1:] = [Cue(writer.thanks(user), fault) for _ in range(3)]
        solves[1:] = [Cue(writer.thanks(assistant), fault) for _ in range(3)]
        asks.append(Cue(DONE.strip("<>")))
    elif fault == "early_stop":
        who = user
        asks[0] = Cue(DONE.strip("<>"), fault)
    elif fault == "crash":
        who = draw.choice((user, assistant))
        script.injections.append(Injection("stop", who, fault, turn=turn, at=draw.randint(3, 9)))
    elif fault in ("drop", "delay"):
        who, other = draw.sample([user, assistant], 2)
        lag = None if fault == "drop" else 1
        script.injections.append(Injection("link", who, fault, turn=draw.randint(1, 2), to=other, lag=lag))
    if fault:
        script.labels = writer.blame(who)
    return script


def coloring(writer: Writer) -> CueSheet:
    """Everyone tells its neighbours its strategy and group, then what it heard, then something else; and answers."""
    draw, names, fault, given = writer.draw, writer.names, writer.fault, writer.item.params
    net = graphs.make(given["graph"], names, given["graph_seed"])
    group = solution(net, "coloring")
    who = draw.choice([name for name in names if net.degree[name] > 1])
    other = draw.choice(list(net[who]))
    ask = draw.random() < 0.3 and fault != "forget"
    sent: dict[str, list[dict[str, str]]] = {name: [{}, {}, {}] for name in names}
    for name in names:
        for near in net[name]:
            first = f"Strategy: greedy. {'Which group do you join? ' if ask else ''}I join {group[name]}."
            known = [one for one in net[name] if fault != "equivocate" or one != who] or [name]
            heard = draw.choice(known)
            sent[name][0][near] = f"{first} {writer.chatter()}"
            sent[name][1][near] = f"{heard} joins {group[heard]}. I am in {group[name]}."
            sent[name][2][near] = f"{writer.chatter()} I am in {group[name]}."
    answers = dict(group)
    free = [one for one in groups(net) if one not in (group[who], group[other])]
    changed: set[int] = set()
    script = CueSheet({})
    if fault in ("drop", "delay"):
        lag = None if fault == "drop" else 1
        script.injections.append(Injection("link", who, fault, turn=draw.randint(1, 2), to=other, lag=lag))
    elif fault == "equivocate":
        changed = {0}
        sent[who][0][other] = f"Strategy: greedy. I join {draw.choice(free)}. {writer.chatter()}"
    elif fault == "crash":
        script.injections.append(Injection("stop", who, fault, turn=draw.randint(0, 1), at=draw.randint(3, 20)))
    elif fault == "echo":
        changed = {2}
        sent[other][1][who] = f"{writer.chatter()} {writer.chatter()}"
        sent[who][2][other] = writer.copied(sent[other][1][who])
    elif fault == "lie":
        changed = {1}
        wrong = draw.choice([one for one in groups(net) if one != group[other]])
        joins = writer.said("joins", "went for")
        sent[who][1] = dict.fromkeys(net[who], f"{other} {joins} {wrong}. I am in {group[who]}.")
    elif fault == "ignore":
        changed = {0, 1, 2, ROUNDS}
        answers[who] = group[other]
        sent[who] = [
            {near: f"{head}{writer.chatter()}" for near in net[who]} for head in ("Strategy: greedy. ", "", "")
        ]
        if draw.random() < 0.5:  # it says so, too late
            sent[who][2] = dict.fromkeys(net[who], f"I join {group[other]}.")
    elif fault == "mismatch":
        changed = {ROUNDS}
        answers[who] = draw.choice([one for one in groups(net) if one != group[who]])
    elif fault == "forget":
        changed = {2}
        sent[who][2][other] = (
            f"Tell me, {other}: {writer.said('which group do you join?', 'and you, where do you go?')}"
        )
    elif fault == "late":
        changed = {0, 2}
        sent[who][0] = {near: text.replace("Strategy: greedy. ", "") for near, text in sent[who][0].items()}
        sent[who][2] = {near: f"Strategy: by-degree. {text}" for near, text in sent[who][2].items()}
    elif fault == "withhold":
        changed = {0, 1, 2}
        for number in range(ROUNDS):
            sent[who][number][other] = writer.chatter()
    for name in names:
        said = [json.dumps(messages) for messages in sent[name]] + [f"{MARK} {answers[name]}"]
        script.cues[name] = [
            Cue(text, fault if name == who and turn in changed else "") for turn, text in enumerate(said)
        ]
    if fault:
        script.labels = writer.blame(who)
    return script


def agreement(writer: Writer) -> CueSheet:
    """All propose what they began with, then the median, and vote to stop; two rounds, up to four if some go on."""
    draw, names, fault = writer.draw, writer.names, writer.fault
    game = consensus.deal(names, 0, seed=writer.item.seed)
    middle = consensus.median(list(game.initial.values()), 0)
    who = draw.choice([name for name in names if game.initial[name] != middle] or list(names))
    other = draw.choice([name for name in names if name != who])
    script = CueSheet({})
    for name in names:
        own = game.initial[name]
        lines: list[Cue | None] = []
        for number in range(4):
            value = middle if number else own
            meant, began, vote, marks = value, own, "stop" if number else "continue", ["", ""]
            if name == who and fault == "lie" and number == 0:
                began, marks[0] = own + draw.choice((-2, -1, 1, 3)), fault
            elif name == who and fault == "mismatch" and number == 1:
                meant, marks[0] = middle + draw.choice((1, 2, 5)), fault
            elif name == who and fault == "early_stop" and number == 0:
                vote, marks[1] = "stop", fault
            elif name in (who, other) and fault == "unaware" and number in (1, 2):
                vote, marks[1] = "continue", fault
            first = writer.said("I began with", "Mine was") if marks[0] else "I began with"
            reason = f"{first} {abs(began)}. {writer.chatter()}" if number == 0 else writer.chatter()
            told = {"internal_strategy": f"I will propose {meant}.", "value": value, "public_reasoning": reason}
            lines += [Cue(json.dumps(told), marks[0]), Cue(json.dumps({"decision": vote}), marks[1])]
        script.cues[name] = lines
    if fault in ("drop", "delay"):
        lag = None if fault == "drop" else 1
        script.injections.append(Injection("link", who, fault, turn=1, to=other, lag=lag))
    elif fault == "equivocate":
        false = next(value for value in range(51) if value not in game.initial.values())
        script.injections.append(Injection("link", who, fault, turn=draw.randint(1, 2), to=other, text=str(false)))
    elif fault == "crash":
        script.injections.append(Injection("stop", who, fault, at=draw.randint(2, 9)))
    if fault:
        script.labels = writer.blame(who, other) if fault == "unaware" else writer.blame(who)
    return script
