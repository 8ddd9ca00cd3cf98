"""A picture of a run for the docs: the panes at some tick of a trace, as `kvorum replay --show` draws them, as SVG.

python tools/shot.py TRACE panes.svg --size 110x30 --at 120
python tools/shot.py TRACE panes.svg            # the last picture, with the answer and the ledger below
"""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, RenderableType

from kvorum.cli.display.panes import Frame
from kvorum.cli.display.state import ShownRun, trace_clock
from kvorum.cli.display.summary import report
from kvorum.store.events import Event
from kvorum.store.traces import read


def state_at(events: Sequence[Event], tick: int | None = None) -> ShownRun:
    """What a run looked like when so many ticks were done; None: at its end."""
    state = ShownRun(clock=trace_clock)
    for event in events:
        if tick is not None and event["event"] == "tick" and event["n"] >= tick:
            break
        state.feed(event)
    return state


def svg(
    state: ShownRun, columns: int, rows: int, *, title: str, below: Sequence[RenderableType] = (), whole: bool = False
) -> str:
    """The panes of a state as SVG, ``below`` printed under them, and with ``whole`` the answer and the ledger too."""
    console = Console(
        file=io.StringIO(), record=True, width=columns, height=rows, force_terminal=True, color_system="standard"
    )
    console.print(Frame(state), end="\n")
    for line in below:
        console.print(line)
    if whole:
        report(state, console, seconds=state.elapsed, trace=None)
    # no fonts from the network: a picture in a README may load none, and every machine has a monospace one
    return re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title=title), flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trace", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--size", default="110x30", help="columns x rows (default: 110x30)")
    parser.add_argument("--at", type=int, help="the tick to stop at (default: the end)")
    parser.add_argument("--title", default="kvorum solve")
    args = parser.parse_args()
    columns, rows = map(int, args.size.split("x"))

    state = state_at(read(args.trace), None if args.at is None else args.at + 1)
    whole = state.end is not None and args.at is None
    picture = svg(state, columns, rows, title=args.title, whole=whole)
    args.picture.parent.mkdir(parents=True, exist_ok=True)
    args.picture.write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
