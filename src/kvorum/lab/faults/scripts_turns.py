"""Scripts of workers that take turns: instruct and solve, colour a graph, agree on a value."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from kvorum.harness.dialogue_rules import DONE, INSTRUCTION, SOLUTION
from kvorum.lab.faults.scripts import Cue, CueSheet, ScriptWriter
from kvorum.runs.injection import Injection
from kvorum.tasks import consensus, graphs
from kvorum.tasks.agentsnet import MARK, groups, solution


def dialogue(writer: ScriptWriter) -> CueSheet:
    """Three instructions and solutions, then the user says that it is done."""
    draw, fault = writer.draw, writer.fault
    user, assistant = writer.names
    asks, solves = list[Cue](), list[Cue]()
    for _ in range(3):
        asks.append(Cue(f"{INSTRUCTION} {writer.chatter()}\nInput: None"))
        thanks = "Thank you for this one. " if draw.random() < 0.3 else ""
        solves.append(_solution(f"{thanks}I will add it up: {writer.sum()}. {writer.chatter()}"))
    done = Cue(DONE.strip("<>"))
    asks.append(done)
    sheet = CueSheet({user: asks, assistant: solves}, [assistant])
    turn = draw.randint(0, 2)
    if words := writer.spoken():
        solves[0 if fault == "unverified" else turn] = _solution(words, fault)
    elif fault == "echo":
        asked = f"{writer.chatter()} {writer.chatter()}"
        asks[turn] = Cue(f"{INSTRUCTION} {asked}\nInput: None", needed=True)
        solves[turn] = _solution(writer.copied(asked), fault)
    elif fault == "flip":
        solves[turn] = Cue(f"{writer.said(INSTRUCTION, 'What you do next is this:')} {writer.chatter()}", fault)
    elif fault == "thanks":
        sheet.blamed = [""]
        asks[1:] = [Cue(writer.thanks(user), fault) for _ in range(3)]
        solves[1:] = [Cue(writer.thanks(assistant), fault) for _ in range(3)]
        asks.append(done)
    elif fault == "early_stop":
        sheet.blamed = [user]
        asks[0] = Cue(done.text, fault)
    elif fault == "crash":
        sheet.blamed = [draw.choice((user, assistant))]
        sheet.injections.append(Injection("stop", sheet.blamed[0], fault, turn=turn, at=draw.randint(3, 9)))
    elif fault in ("drop", "delay"):
        sender, reader = draw.sample([user, assistant], 2)
        sheet.blamed = [sender]
        sheet.injections.append(writer.link(sender, reader, draw.randint(1, 2)))
    return sheet


def _solution(words: str, fault: str = "") -> Cue:
    return Cue(f"{SOLUTION} {words}\nNext request.", fault)


def coloring(writer: ScriptWriter) -> CueSheet:
    """Everyone tells its neighbours its strategy and group, then what it heard, then something else; and answers."""
    draw, names, fault, given = writer.draw, writer.names, writer.fault, writer.item.given["network"]
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
    lines = {name: _on_graph(sent[name], group[name]) for name in names}
    mine, answer = sent[who], group[who]
    free = [one for one in groups(net) if one not in (answer, group[other])]
    sheet = CueSheet({}, [who])
    if fault in ("drop", "delay"):
        sheet.injections.append(writer.link(who, other, draw.randint(1, 2)))
    elif fault == "equivocate":
        mine[0][other] = f"Strategy: greedy. I join {draw.choice(free)}. {writer.chatter()}"
    elif fault == "crash":
        sheet.injections.append(Injection("stop", who, fault, turn=draw.randint(0, 1), at=draw.randint(3, 20)))
    elif fault == "echo":
        sent[other][1][who] = f"{writer.chatter()} {writer.chatter()}"
        lines[other] = _on_graph(sent[other], group[other])
        mine[2][other] = writer.copied(sent[other][1][who])
    elif fault == "lie":
        wrong = draw.choice([one for one in groups(net) if one != group[other]])
        joins = writer.said("joins", "went for")
        mine[1] = dict.fromkeys(net[who], f"{other} {joins} {wrong}. I am in {answer}.")
    elif fault == "ignore":
        mine = [{near: f"{head}{writer.chatter()}" for near in net[who]} for head in ("Strategy: greedy. ", "", "")]
        answer = group[other]
        if draw.random() < 0.5:  # it says so, too late
            mine[2] = dict.fromkeys(net[who], f"I join {answer}.")
    elif fault == "mismatch":
        answer = draw.choice([one for one in groups(net) if one != answer])
    elif fault == "forget":
        asks = writer.said("which group do you join?", "and you, where do you go?")
        mine[2][other] = f"Tell me, {other}: {asks}"
    elif fault == "late":
        mine[0] = {near: text.replace("Strategy: greedy. ", "") for near, text in mine[0].items()}
        mine[2] = {near: f"Strategy: by-degree. {text}" for near, text in mine[2].items()}
    elif fault == "withhold":
        for messages in mine:
            messages[other] = writer.chatter()
    sheet.cues = {name: [Cue(line) for line in lines[name]] for name in names}
    changed = zip(_on_graph(mine, answer), lines[who], strict=True)
    sheet.cues[who] = [Cue(line, fault if line != usual else "") for line, usual in changed]
    return sheet


def _on_graph(rounds: Sequence[Mapping[str, str]], answer: str) -> list[str]:
    """What somebody writes on a graph: its messages of each round, and its answer."""
    return [*map(json.dumps, rounds), f"{MARK} {answer}"]


def agreement(writer: ScriptWriter) -> CueSheet:
    """All propose what they began with, then the median, and vote to stop; two rounds, up to four if some go on."""
    draw, names, fault = writer.draw, writer.names, writer.fault
    game = consensus.deal(names, 0, seed=writer.item.seed)
    middle = consensus.median(list(game.initial.values()), 0)
    who = draw.choice([name for name in names if game.initial[name] != middle] or list(names))
    other = draw.choice([name for name in names if name != who])
    sheet = CueSheet({name: [] for name in names}, [who, other] if fault == "unaware" else [who])
    for name, own in game.initial.items():
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
            fields = {"internal_strategy": f"I will propose {meant}.", "value": value, "public_reasoning": reason}
            sheet.cues[name].append(Cue(json.dumps(fields), marks[0]))
            sheet.cues[name].append(Cue(json.dumps({"decision": vote}), marks[1]))
    if fault in ("drop", "delay"):
        sheet.injections.append(writer.link(who, other, 1))
    elif fault == "equivocate":
        false = next(value for value in range(51) if value not in game.initial.values())
        sheet.injections.append(Injection("link", who, fault, turn=draw.randint(1, 2), to=other, text=str(false)))
    elif fault == "crash":
        sheet.injections.append(Injection("stop", who, fault, at=draw.randint(2, 9)))
    return sheet
