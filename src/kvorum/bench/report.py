"""A bench as tables for people and as one JSON object for machines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from kvorum.bench.compare import Bench, Cell

OMITTED = (
    "Not shown: sampling and text (all sides run the model alone); llama.cpp with one prompt shared by its slots; "
    "vLLM; time to first token; quality of the weights (kvorum quantises inputs too, transformers is in float32); "
    "other machines."
)


def as_json(bench: Bench, about: dict[str, Any]) -> dict[str, Any]:
    """``about`` (machine, model, command), ``ticks`` (an object per cell), ``prefill`` (tokens/s), ``spans``."""
    return {
        "about": about,
        "ticks": [
            {"side": cell.side, "context": cell.context, "workers": cell.workers, "tokens_per_second": cell.rate}
            | {"tick_seconds": cell.tick.as_dict()}
            for cell in bench.cells
        ],
        "prefill": [
            {"side": side, "context": context, "tokens_per_second": rate}
            for (side, context), rate in bench.prefill.items()
        ],
        "spans": [{"spans": count, "tick_seconds": timing.as_dict()} for count, timing in bench.spans.items()],
    }


def show(bench: Bench, about: dict[str, Any], console: Console) -> None:
    """Print the tables."""
    machine = about["machine"]
    console.print(
        f"{about['model']}: {machine['processor']}, {machine['threads']} threads, {machine['capability']}, "
        f"{about['bandwidth'] / 1e9:.1f} GB/s read, {machine['date']}",
        highlight=False,
    )
    for context in dict.fromkeys(cell.context for cell in bench.cells):
        console.print(_ticks(bench, context, about))
    if bench.prefill:
        table = Table("", "tokens", "tokens/s", title="prefill")
        for (side, context), rate in bench.prefill.items():
            table.add_row(side, f"{context:,}", f"{rate:.0f}")
        console.print(table)
    if bench.spans:
        table = Table("closed spans", "median ms", "min", "max", "over one", title="the same tokens in more spans")
        one = next(iter(bench.spans.values())).median
        for count, timing in bench.spans.items():
            table.add_row(str(count), *_milliseconds(timing.as_dict()), f"{timing.median / one:.2f}")
        console.print(table)
    console.print(f"Peak memory of this process, all sides together: {about['peak_memory'] / 2**30:.1f} GiB.")
    console.print(OMITTED, highlight=False)


def _ticks(bench: Bench, context: int, about: dict[str, Any]) -> Table:
    title = f"a tick behind {context:,} tokens"
    table = Table("", "workers", "median ms", "min", "max", "tokens/s", "over one", "of bandwidth", title=title)
    table.add_column("kvorum over it")
    for cell in _by_workers(bench, context):
        growth, over = bench.growth(cell.side, context, cell.workers), bench.over(cell.side, context, cell.workers)
        share = None
        if cell.side == "kvorum":
            read = about["weight_bytes"] + (context + cell.workers) * about["bytes_per_token"]
            share = read / cell.tick.median / about["bandwidth"]
        table.add_row(
            *(cell.side, str(cell.workers), *_milliseconds(cell.tick.as_dict()), f"{cell.rate:.0f}"),
            "" if growth is None else f"{growth:.2f}",
            "" if share is None else f"{share:.0%}",
            "" if over is None or cell.side == "kvorum" else f"{over:.2f}",
        )
    return table


def _by_workers(bench: Bench, context: int) -> Iterator[Cell]:
    yield from sorted((c for c in bench.cells if c.context == context), key=lambda cell: cell.workers)


def _milliseconds(timing: dict[str, float]) -> list[str]:
    return [f"{timing[key] * 1e3:.1f}" for key in ("median", "min", "max")]
