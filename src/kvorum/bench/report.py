"""A bench as tables for people, 80 columns wide."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from kvorum.bench.bound import bounds_table
from kvorum.bench.bounds import bounds, machine_meant
from kvorum.bench.result import OURS, PEERS, About, Bench, TeamTick, Timing
from kvorum.bench.tables import figures_table
from kvorum.wording import plural

NOTES = (
    "A tick is one new token for each of W workers. Times are of a tick right after another one: the median of "
    "interleaved repeats, the least and the most.",
    "GB/s: weights and visible cache, each byte once, over the time of a kvorum tick; beside it the share of the "
    "bandwidth that was measured here.",
    "MiB: the most that the side's process held, mapped weights, Python and libraries included; kvorum keeps the "
    "pages of earlier, smaller teams.",
    "Not shown: picking tokens, text and scheduling, which all sides but vLLM leave out; quality beside the peers "
    "(llama.cpp takes the GGUF file's weights as they are, kvorum may pack them anew, transformers and vLLM are in "
    "float32); workers with contexts of their own; GPUs; other machines.",
)


def show(bench: Bench, about: About, console: Console) -> None:
    """Print what was measured, the bounds, and what the figures do not show."""
    machine = about.machine
    console.print(
        f"{about.model} on {machine.processor}: {machine.threads} threads, {machine.capability}, "
        f"{machine.bandwidth / 1e9:.1f} GB/s read, {machine.date}"
    )
    weights = _ms(about.weight_bytes / machine.bandwidth)
    console.print(
        f"What bounds a tick: of few workers memory, from which the weights come in {weights} ms, of many arithmetic."
    )
    for context in bench.contexts():
        console.print(_ticks(bench, context, about))
    for table in (_prefill(bench), _memory(bench), _growth(bench), _quality(bench), _bounds(bench, about)):
        if table.row_count:
            console.print(table)
    if (crowd := bench.crowd) is not None:
        console.print(
            f"\nCache of {crowd.teams} teams: {crowd.computed / 1024:.1f} KiB per token by the model's shape; the "
            f"process grew by {crowd.resident / 1024:.1f} KiB for each of {crowd.slots:,} slots in the pages taken."
        )
    if bench.start is not None:
        console.print(f"First token of a later kvorum solve with four workers: {_seconds(bench.start)}.")
    for name, timing in bench.starts.items():
        console.print(f"{name}: {_seconds(timing)}.")
    for line in bench.left_out:
        console.print(f"Not measured: {line}.", markup=False)
    for note in NOTES:
        console.print(note, style="dim")


def _ticks(bench: Bench, context: int, about: About) -> Table:
    table = figures_table(
        f"a tick behind {context:,} tokens",
        *("", "W", "ms", "least-most", "tokens/s", "over W=1", "kvorum is", "GB/s", "MiB"),
    )
    teams = [team for team in bench.ticks if team.context == context]
    for team in sorted(teams, key=lambda team: (team.workers, (OURS, *PEERS).index(team.side))):
        growth, over = bench.growth(team.side, context, team.workers), bench.over(team.side, context, team.workers)
        table.add_row(
            team.side,
            str(team.workers),
            _ms(team.tick.median),
            f"{_ms(team.tick.min)}-{_ms(team.tick.max)}",
            f"{team.rate:.0f}",
            "" if growth is None or team.workers == 1 else f"{growth:.2f}",
            "" if team.side == OURS else _times(over),
            _bandwidth(team, about) if team.side == OURS else "",
            _mib(team.peak),
            end_section=team is teams[-1],
        )
    return table


def _bandwidth(team: TeamTick, about: About) -> str:
    return f"{about.rate(team) / 1e9:.1f} {about.share(team):.0%}"


def _prefill(bench: Bench) -> Table:
    table = figures_table("prefill, alone", "", "tokens", "first token", "tokens/s", "kvorum is", "MiB")
    for row in bench.prefill:
        over = bench.prefill_over(row.side, row.context) if row.side != OURS else None
        first = _seconds(row.seconds)
        table.add_row(row.side, f"{row.context:,}", first, f"{row.rate:.0f}", _times(over), _mib(row.peak))
    return table


def _memory(bench: Bench) -> Table:
    table = figures_table("MiB of each process", "", "bare", "model loaded", "at most")
    for side, memory in bench.loaded.items():
        peaks = [team.peak for team in bench.ticks if team.side == side]
        peak = max([memory.after, *peaks, *(row.peak for row in bench.prefill if row.side == side)])
        table.add_row(side, _mib(memory.before), _mib(memory.after), _mib(peak))
    return table


def _growth(bench: Bench) -> Table:
    table = figures_table("how the cost of a kvorum tick grows", "", "ms", "least-most", "over the first")

    def add(what: str, timing: Timing, first: Timing | None) -> None:
        over = "" if first is None else f"{timing.median / first.median:.2f}"
        table.add_row(what, _ms(timing.median), f"{_ms(timing.min)}-{_ms(timing.max)}", over)

    for count, timing in bench.spans.items():
        add(f"4 workers, 2,048 tokens in {plural(count, 'closed span')}", timing, bench.spans.get(1))
    for row in bench.attention:
        first = bench.attention[0].added
        add(f"W={row.workers}: what {row.context:,} shared tokens add", row.added, first if first.median > 0 else None)
    if (crowd := bench.crowd) is not None:
        add(f"{crowd.teams} teams of {crowd.workers}, {crowd.context} tokens each: a tick", crowd.tick, None)
        add("    its plan (part of the tick)", crowd.plan, None)
        table.add_row("    the plan of views not seen before", _ms(crowd.first_plan), "", "")
    return table


def _quality(bench: Bench) -> Table:
    table = figures_table("loss of the fast mode", "", "tokens", "exact", "fast", "loss", "same likeliest")
    for row in bench.quality:
        what = f"perplexity, weights {row.weights}, {row.at_once} tokens a forward"
        exact, fast = f"{row.exact:.2f}", f"{row.fast:.2f}"
        table.add_row(what, f"{row.tokens:,}", exact, fast, f"{row.loss:+.2%}", f"{row.agreement:.1%}")
    return table


def _bounds(bench: Bench, about: About) -> Table:
    here = f"{about.machine.threads} threads, {about.machine.capability}"
    return bounds_table(f"bounds, set for {machine_meant(about)} (here: {here})", bounds(bench, about))


def _mib(size: float) -> str:
    return f"{size / 2**20:.0f}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}x"


def _ms(seconds: float) -> str:
    """Milliseconds, in about three digits."""
    return f"{seconds * 1e3:.{1 if seconds < 0.1 else 0}f}"


def _seconds(timing: Timing) -> str:
    if timing.repeats == 1:
        return f"{timing.median:.2f} s"
    return f"{timing.median:.2f} s ({timing.min:.2f}-{timing.max:.2f})"
