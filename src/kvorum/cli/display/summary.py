"""The end of a run: what everyone wrote, the answer, who said it, what was spent. For people, or as one JSON object."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from kvorum.cli.display.panes import colour, line_text
from kvorum.cli.display.state import ShownRun
from kvorum.wording import clock, count, harmless, plural, size


def transcript(state: ShownRun, console: Console) -> None:
    """Everything that the workers wrote, worker by worker, for the scrollback of a terminal."""
    for worker in state.workers.values():
        if not worker.lines:
            continue
        console.print(Text(worker.name, f"bold {colour(worker.index)}"))
        for line in worker.lines:
            if line.text.strip():
                console.print(Padding(line_text(line, worker), (0, 0, 0, 2)))
        console.print()


def report(state: ShownRun, console: Console, *, seconds: float, trace: str | None) -> None:
    """The answer and the ledger, in a few lines."""
    answer = state.answer
    shown = harmless(answer) if answer is not None else "none; what was written stands above"
    if console.is_terminal:
        console.rule("answer", style="dim", characters="─")
        console.print(Text(shown, "bold"), soft_wrap=True)
        console.print()
    else:
        gap = "\n" if "\n" in shown else " "
        console.print(Text(f"\nAnswer:{gap}{shown}\n"), soft_wrap=True)
    for label, words in _facts(state, seconds, trace):
        console.print(Text.assemble((f"{label:7}", "dim"), harmless(words)), soft_wrap=not console.is_terminal)


def print_json(state: ShownRun, *, seconds: float, trace: str | None) -> None:
    """Print the end of a run for machines: the fields of a `Result`, then what was run, how fast, and the trace's file.

    Of each worker: its name, how many tokens it picked, and their text, without the words that it was given; and the
    loop that it was in at its end, if any.
    """
    start, end = state.start, state.end
    assert start is not None
    assert end is not None
    found = {
        "answer": end["answer"],
        "outcome": end["outcome"],
        "by": state.found,
        "spent": end["spent"],
        "program": start["program"],
        "params": start["params"],
        "model": start["model"],
        "budget": start["budget"],
        "seed": start["seed"],
        "workers": [
            {
                "name": worker.name,
                "tokens": len(worker.picked),
                "text": "".join(worker.picked),
                "looping": asdict(worker.looping) if worker.looping else None,
            }
            for worker in state.workers.values()
        ],
        "ledger": end["ledger"],
        "seconds": round(seconds, 3),
        "tokens_per_second": round(state.decoded / seconds, 2) if seconds else None,
        "trace": trace,
    }
    print(json.dumps(found, ensure_ascii=False))


def _facts(state: ShownRun, seconds: float, trace: str | None) -> list[tuple[str, str]]:
    start, ledger = state.start, state.used()
    assert start is not None
    people = plural(len(start["workers"]), "worker")
    if added := len(state.workers) - len(start["workers"]):  # by people, or by the program for its branches
        people += f" and {added} added"
    spent = f"{count(ledger['ticks'])} ticks, {count(ledger['decoded'])} tokens decoded"
    if "prefill" in ledger:
        spent += f", {count(ledger['prefill'])} prefill"
    if ledger.get("latent"):
        spent += f", {count(ledger['latent'])} latent steps"
    shared = f"; {state.moved} steps moved to the shared history" if state.moved else ""
    facts = [
        ("how", _how(state)),
        ("team", f"{start['program']}, {people}, {start['model']['name']}, seed {start['seed']}"),
        ("spent", spent if "kv_read" in ledger else spent + shared),
    ]
    if "kv_read" in ledger:
        facts.append(("KV", f"{size(ledger['kv_read'])} read, {size(ledger['kv_written'])} written{shared}"))
    if seconds:
        facts.append(("time", f"{clock(seconds)}, {state.decoded / seconds:.1f} tokens/s"))
    if trace is not None:
        facts.append(("trace", trace))
    return facts


def _how(state: ShownRun) -> str:
    """How the run came to its end."""
    outcome, reached = (state.end["outcome"], state.end["spent"]) if state.end else ("none", None)
    most = state.limits().get(reached or "")
    limit = "" if most is None else f"{most:g} {reached}"
    ended = [(worker.name, one) for worker in state.workers.values() if (one := worker.looping) and one.ended]
    loops = [f"{name} was {looping.words}" for name, looping in ended]
    why = f"the budget of {limit} was spent" if limit else _and(loops)
    if state.votes:
        votes = ", ".join(f"{name} {answer}" for name, answer in state.votes.items())
        return f"votes: {votes}" + {"forced": "; some were asked for at the end", "cut": f"; {_cut(limit, loops)}"}.get(
            outcome, ""
        )
    if outcome == "answered":
        return f"found by {state.found}" if state.found else "answered"
    if outcome == "forced":
        last = [worker for worker in state.workers.values() if worker.seen == state.ticks]
        asked = f"so {last[0].name} had to answer" if len(last) == 1 else "so an answer was asked for"
        return f"{why or 'nobody had answered in the asked form'}, {asked}"
    if outcome == "cut":
        return _cut(limit, loops)
    return "no answer" + (f" within {limit}" if reached else f": {_and(loops)}" if loops else "")


def _and(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def _cut(limit: str, loops: Sequence[str]) -> str:
    if limit:
        return f"cut at the budget of {limit}"
    return f"cut: {_and(loops)}" if loops else "cut before its end"
