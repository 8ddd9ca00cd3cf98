"""A bench as a picture: ticks and tokens per second over the number of workers, a column for each context."""

from __future__ import annotations

from pathlib import Path

from kvorum.bench.result import OURS, PEERS, About, Bench
from kvorum.errors import BadRequest, need

FORMATS = (".png", ".svg", ".pdf")
_COLOURS = dict(zip((OURS, *PEERS), ("#c1121f", "#1d3557", "#669bbc", "#6c757d", "#e09f3e"), strict=True))


def check(path: Path) -> None:
    """Find out before hours of measuring that no picture can be drawn. Raises `BadRequest` or `MissingExtra`."""
    if path.suffix not in FORMATS:
        raise BadRequest(f"A plot is written as {', '.join(FORMATS)}, not as {path.suffix or 'a file without ending'}.")
    need("matplotlib", "A plot", "bench")


def plot(bench: Bench, about: About, path: Path) -> None:
    """Write the picture; bars are the least and the most of the repeats."""
    from matplotlib.figure import Figure  # no pyplot: nothing global, no window

    contexts = bench.contexts()
    figure = Figure(figsize=(1.2 + 3.6 * max(1, len(contexts)), 6.4), layout="constrained")
    counts = sorted({team.workers for team in bench.ticks})
    axes = figure.subplots(2, max(1, len(contexts)), squeeze=False, sharex=True, sharey="row")
    for column, context in enumerate(contexts):
        ticks, rates = axes[0][column], axes[1][column]
        for side in dict.fromkeys(team.side for team in bench.ticks):
            teams = sorted(
                (t for t in bench.ticks if (t.side, t.context) == (side, context)), key=lambda team: team.workers
            )
            if not teams:
                continue
            workers = [team.workers for team in teams]
            middle = [team.tick.median * 1e3 for team in teams]
            below = [team.tick.median * 1e3 - team.tick.min * 1e3 for team in teams]
            above = [team.tick.max * 1e3 - team.tick.median * 1e3 for team in teams]
            colour, mark = _COLOURS[side], "o"
            bars = [below, above]
            ticks.errorbar(workers, middle, yerr=bars, capsize=2, color=colour, marker=mark, markersize=4, label=side)
            rates.plot(workers, [team.rate for team in teams], color=colour, marker=mark, markersize=4)
        ticks.set_title(f"{context:,} shared tokens")
        rates.set_xlabel("workers")
        for axis in (ticks, rates):
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            axis.grid(alpha=0.25)
            axis.set_xticks(counts, labels=[str(count) for count in counts], minor=False)
            axis.yaxis.set_major_formatter("{x:g}")
            least, most = axis.get_ylim()
            axis.yaxis.set_minor_formatter("{x:g}" if most / least < 30 else "")  # few powers of ten say too little
    axes[0][0].set_ylabel("ms per tick")
    axes[1][0].set_ylabel("tokens per second, all workers")
    axes[0][0].legend(frameon=False, fontsize="small")
    machine = about.machine
    figure.suptitle(
        f"{about.model}, {machine.processor}, {machine.threads} threads, {machine.capability}, {machine.date}",
        fontsize="medium",
    )
    figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
