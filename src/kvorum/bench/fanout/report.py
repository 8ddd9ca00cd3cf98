"""A comparison of whole jobs as tables for people, and as JSON."""

from __future__ import annotations

from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from kvorum.bench.bound import bounds_json, bounds_table
from kvorum.bench.fanout.bounds import fanout_bounds
from kvorum.bench.fanout.session import FORM_KEPT, JOBS, OURS, Fanout, Line
from kvorum.bench.result import Machine
from kvorum.bench.tables import figures_table, headline
from kvorum.jsontypes import JsonObject

TITLES = {
    "ask": "16 questions of some 2,000 tokens, 48 tokens each",
    "fields": "a form of 12 fields from some 1,000 tokens",
    "decide": "20 yes/no decisions about some 1,000 tokens",
}
NOTES = (
    "Seconds are the median of the rounds; all engines take turns, get the same token ids and write greedily. Right "
    "answers are of the last round.",
    "llama-server's slots share no beginning: with several, the text is handed to each by a file before the clock "
    "starts. Decisions are compared over HTTP on both sides. Not in the figures: loading a model, quality in general, "
    "other machines and GPUs, many users at once.",
)


def show_fanout(found: Fanout, model: str, machine: Machine, console: Console) -> None:
    """Print a table for each job: what each way took, and how many times faster kvorum's fastest way is."""
    console.print(headline(model, machine))
    for job in JOBS:
        lines = found.of_job(job)
        if lines:
            console.print(_table(job, lines))
    if bounds := fanout_bounds(found, model):
        console.print(bounds_table("bounds, times as fast", bounds))
    for why in found.left_out:
        console.print(f"Left out: {why}.", markup=False)
    for note in NOTES:
        console.print(note, style="dim")


def _table(job: str, lines: list[Line]) -> Table:
    heads = ("", "how", "seconds", "least-most", "right", "kvorum is")
    table = figures_table(f"{job}: {TITLES[job]}", *heads, words=2)
    for line in lines:
        ours = _ours_for(line, lines)
        table.add_row(
            line.side,
            line.how,
            f"{line.median:.2f}",
            f"{min(line.seconds):.2f}-{max(line.seconds):.2f}",
            f"{line.right} of {line.of}" if line.of else "",
            "" if ours is None or ours is line else f"{line.median / ours.median:.2f}x",
        )
    return table


def _ours_for(line: Line, lines: list[Line]) -> Line | None:
    """What a line is compared with: kvorum all at once, or from cold; one question with the other one; a form that is
    kept with a kept one; decisions of a server with those over HTTP."""
    how = "at once"
    if line.job == "decide" and line.side != OURS:
        how = f"over HTTP, {'from cold' if line.how == 'from cold' else 'text kept'}"
    elif "one question" in line.how:
        how = "one question, first answer token, text kept"
    elif line.how.endswith(FORM_KEPT):
        how = f"at once{FORM_KEPT}"
    elif line.how == "from cold":
        how = "from cold"
    return next((one for one in lines if one.side == OURS and one.how == how), None)


def fanout_json(found: Fanout, model: str, machine: Machine, command: list[str]) -> JsonObject:
    """One object for machines; times in seconds."""
    return {
        "about": {"model": model, "machine": asdict(machine), "command": command},
        "lines": [asdict(line) | {"median": line.median} for line in found.lines.values()],
        "left_out": found.left_out,
        "bounds": bounds_json(fanout_bounds(found, model)),
    }
