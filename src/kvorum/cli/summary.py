"""The end of a run: what everyone wrote, the answer, who said it, what was spent. For people, or as one JSON object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.text import Text

from kvorum.cli.board import harmless
from kvorum.cli.panes import colour
from kvorum.wording import clock, count, plural, size

if TYPE_CHECKING:
    from rich.console import Console

    from kvorum.cli.board import Board, Lane


def transcript(board: Board, console: Console) -> None:
    """Everything that the workers wrote, worker by worker, for the scrollback of a terminal."""
    for lane in board.lanes.values():
        if not lane.lines:
            continue
        console.print(Text(lane.name, f"bold {colour(lane.index)}"))
        for line in lane.lines:
            if line.text.strip():
                text = Text()
                for words, given in line.runs:
                    text.append(words, colour(lane.index) if given else None)
                console.print(Padding(text, (0, 0, 0, 2)))
        console.print()


def report(board: Board, console: Console, *, seconds: float, trace: str | None) -> None:
    """The answer and the ledger, in a few lines."""
    answer = board.end.get("answer")
    if console.is_terminal:
        console.rule("answer", style="dim", characters="─")
    shown = harmless(answer) if answer is not None else "nobody gave one"
    if console.is_terminal:
        console.print(Text(shown, "bold"), soft_wrap=True)
        console.print()
    else:
        gap = "\n" if "\n" in shown else " "
        console.print(Text(f"\nAnswer:{gap}{shown}\n"), soft_wrap=True)
    for label, words in _facts(board, seconds, trace):
        console.print(Text.assemble((f"{label:7}", "dim"), harmless(words)), soft_wrap=not console.is_terminal)


def as_json(board: Board, *, seconds: float, trace: str | None) -> dict[str, Any]:
    """The same for machines. ``text`` is what a worker wrote itself, without the words that it was given."""
    start, end = board.start, board.end
    ledger = end.get("ledger", {})
    return {
        "answer": end.get("answer"),
        "outcome": end.get("outcome"),
        "by": board.found,
        "spent": end.get("spent"),
        "program": start["program"],
        "params": start["params"],
        "model": start["model"],
        "budget": start["budget"],
        "seed": start["seed"],
        "workers": [
            {"name": lane.name, "tokens": lane.tokens, "text": "".join(lane.said)} for lane in board.lanes.values()
        ],
        "ledger": ledger,
        "seconds": round(seconds, 3),
        "tokens_per_second": round(board.decoded / seconds, 2) if seconds else None,
        "trace": trace,
    }


def _facts(board: Board, seconds: float, trace: str | None) -> list[tuple[str, str]]:
    start, ledger = board.start, board.used()
    people = len(board.lanes)
    team = f"{start['program']}, {plural(people, 'worker')}, {start['model']['name']}, seed {start['seed']}"
    spent = f"{count(ledger['ticks'])} ticks, {count(ledger['decoded'])} tokens decoded"
    if "prefill" in ledger:
        spent += f", {count(ledger['prefill'])} prefill"
    if ledger.get("latent"):
        spent += f", {count(ledger['latent'])} latent steps"
    facts = [("how", _how(board)), ("team", team), ("spent", spent)]
    if "kv_read" in ledger:
        facts.append(("KV", f"{size(ledger['kv_read'])} read, {size(ledger['kv_written'])} written"))
    if board.moved:
        facts[-1] = (facts[-1][0], f"{facts[-1][1]}; {board.moved} steps moved to the shared history")
    if seconds:
        facts.append(("time", f"{clock(seconds)}, {board.decoded / seconds:.1f} tokens/s"))
    if trace is not None:
        facts.append(("trace", trace))
    return facts


def _how(board: Board) -> str:
    end = board.end
    if board.votes:
        votes = ", ".join(f"{name} {answer}" for name, answer in board.votes.items())
        return f"votes: {votes}" + ("; some were asked for at the budget" if end.get("outcome") == "forced" else "")
    if end.get("outcome") == "answered":
        return f"found by {board.found}" if board.found else "answered"
    if end.get("outcome") == "forced":
        who = _last(board)
        asked = f"so {who.name} had to answer" if who else "so an answer was asked for"
        limit = end.get("spent")
        given = start_limit(board, limit)
        return f"the budget of {given} was spent, {asked}" if given else f"everyone stopped without an answer, {asked}"
    return "no answer" + (f" within {start_limit(board, end.get('spent'))}" if end.get("spent") else "")


def start_limit(board: Board, name: str | None) -> str:
    """A limit of the budget in words: "512 ticks"; empty for none."""
    limit = board.start.get("budget", {}).get(name) if name else None
    return f"{limit:g} {name}" if limit is not None else ""


def _last(board: Board) -> Lane | None:
    """The only worker that spoke in the last tick."""
    last = [lane for lane in board.lanes.values() if lane.seen == board.ticks]
    return last[0] if len(last) == 1 else None
