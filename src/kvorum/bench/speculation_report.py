"""What speculation gains as a table for people, as JSON, and beside its bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from kvorum.bench.bound import CODER, Bound, bounds_json, bounds_table
from kvorum.bench.result import Machine
from kvorum.bench.speculation import TOKENS, Gain
from kvorum.bench.tables import headline
from kvorum.jsontypes import Json, JsonObject

NOTE = (
    "Time a token of one row: of one worker from the first token to the last, of several rows in ticks that read no "
    "prompt; medians over rounds. The tokens are the same with and without, which is checked. Drafted: tokens computed "
    "ahead; came: those of them that the model wrote."
)


def gains_bounds(found: Sequence[Gain], model: str) -> list[Bound]:
    """What one worker gains where answers repeat their prompts, of the model that this is set for, and what nobody
    loses elsewhere."""

    def row(what: str, limit: float, gains: Sequence[Gain]) -> Bound:
        return Bound.worst(what, limit, [(gain.ratio, _where(gain)) for gain in gains], least=True)

    alone = [gain for gain in found if gain.rows == 1]
    rows = []
    if model == CODER:
        for kind in ("extraction", "code editing"):
            rows.append(row(f"{kind}, one worker", 1.5, [gain for gain in alone if gain.kind == kind]))
    rows.append(row("free text, one worker", 0.98, [gain for gain in alone if gain.kind == "free text"]))
    return [*rows, row("whatever is written, by however many", 0.98, found)]


def _where(gain: Gain) -> str:
    return f"{gain.kind}, temperature {gain.temperature:g}, {gain.rows} rows{', in step' * gain.in_step}"


def gains_json(found: Sequence[Gain], model: str, machine: Machine, command: Sequence[str]) -> JsonObject:
    """All figures."""
    kinds: list[Json] = [{**asdict(gain), "ratio": gain.ratio} for gain in found]
    bounds = bounds_json(gains_bounds(found, model))
    return {"model": model, "machine": asdict(machine), "command": list(command), "kinds": kinds, "bounds": bounds}


def show_gains(found: Sequence[Gain], model: str, machine: Machine, console: Console) -> None:
    """Print the table."""
    console.print(headline(model, machine))
    table = Table(title=f"\nSpeculation, {TOKENS} tokens a row", title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for head in ("rows", "temperature", "ms without", "ms with", "times as fast", "drafted", "came"):
        table.add_column(head, justify="right", no_wrap=True)
    for gain in found:
        rows = f"{gain.rows}{' in step' * gain.in_step}"
        row = (
            rows,
            f"{gain.temperature:g}",
            f"{1000 * gain.without:.1f}",
            f"{1000 * gain.with_it:.1f}",
            f"{gain.ratio:.2f}",
        )
        table.add_row(gain.kind, *row, str(gain.drafted), str(gain.accepted))
    console.print(table)
    console.print(bounds_table("bounds, times as fast as without", gains_bounds(found, model)))
    console.print(NOTE, style="dim")
