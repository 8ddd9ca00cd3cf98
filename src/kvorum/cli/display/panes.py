"""Panes: a run in a terminal, every worker in a pane of its own, side by side, newest words at the bottom.

Drawn on the alternate screen, eight times a second, by a thread of its own: ticks do not wait for it, any size works
and a resize is met at the next drawing. `summary` leaves everything in the scrollback afterwards. Lines that cannot
change any more are wrapped once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from kvorum.cli.display.state import ShownRun
from kvorum.cli.display.worker_lines import TextLine, WorkerState
from kvorum.store.events import Event
from kvorum.wording import clock, count, harmless, plural, size

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")
PER_SECOND = 8
_COMFORT = 34
"""Columns that a pane should have, where the terminal has room."""
_TIGHT = 18
"""Columns that it must have."""
_LONG = 2000
"""Of a line longer than twice this, only the end is wrapped at each drawing."""


def colour(index: int) -> str:
    """The colour of the worker ``index``."""
    return COLOURS[index % len(COLOURS)]


@contextmanager
def panes(state: ShownRun, console: Console) -> Iterator[Callable[[Event], None]]:
    """Draws a run's state on the terminal's alternate screen, which leaves what was printed before as it was."""
    with Live(console=console, screen=True, refresh_per_second=PER_SECOND, get_renderable=lambda: Frame(state)) as live:
        live.refresh()
        yield state.feed


class Frame:
    """One drawing of a state, as large as the terminal."""

    def __init__(self, state: ShownRun) -> None:
        self._state = state

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = console.size
        with self._state.lock:
            lines = list(self._lines(console, width, height))
        blank = Text(" " * width)
        for at in range(height):
            line = lines[at] if at < len(lines) else blank
            line.end = "" if at == height - 1 else "\n"
            line.no_wrap = True
            yield line

    def _lines(self, console: Console, width: int, height: int) -> Iterator[Text]:
        top = self._header(width)[: 2 if height >= 12 else 1]
        foot = self._footer(width)[: 2 if height >= 12 else 1]
        yield from top
        yield from self._grid(console, width, max(0, height - len(top) - len(foot)))
        yield from foot

    # -- above and below ---------------------------------------------------------------------------------------

    def _header(self, width: int) -> list[Text]:
        start = self._state.start
        if start is None:
            return [_fit(Text("kvorum", "bold"), width), _fit(Text(self._state.status, "dim"), width)]
        people = len(self._state.workers)
        title = Text.assemble(
            ("kvorum", "bold"),
            harmless(f" {start['program']}"),
            (harmless(f" · {start['model']['name'].rsplit('/')[-1]}"), "dim"),
        )
        title.append(f" · {plural(people, 'worker')}", "dim")
        problem = " ".join(harmless(start["task"]["prompt"]).split())
        return [_fit(title, width), _fit(Text(problem, "italic"), width)]

    def _footer(self, width: int) -> list[Text]:
        state = self._state
        if state.start is None:
            return [_fit(Text(), width)] * 2
        share = state.share()
        limit = f"/{share.limit:.0f}" if share.limit else ""
        used = state.used()
        parts = [f"{state.speed:.1f} tokens/s", clock(state.elapsed), f"{count(used.get('decoded', 0))} decoded"]
        if "prefill" in used:
            parts.append(f"{count(used['prefill'])} prefill")
        if state.moved:
            parts.append(f"{plural(state.moved, 'step')} shared")
        if "kv_read" in used:
            parts.append(f"KV {size(used['kv_read'])} read, {size(used['kv_written'])} written")
        line = Text(f"{share.spent:.0f}{limit} {share.name}", "bold")
        for part in parts:
            if line.cell_len + len(part) + 3 <= width:
                line.append(f" · {part}", "dim")
        done = round(share.share * width)
        bar = Text.assemble(("━" * done, "bold"), ("─" * (width - done), "dim"))
        return [_fit(line, width), bar] if width < 60 else [bar, _fit(line, width)]

    # -- the panes ---------------------------------------------------------------------------------------------

    def _grid(self, console: Console, width: int, height: int) -> Iterator[Text]:
        workers = list(self._state.workers.values())
        if not workers or height < 1:
            yield from (Text("") for _ in range(height))
            return
        columns, rows = shape(len(workers), width, height)
        hidden = len(workers) - columns * rows
        if hidden > 0:  # those who spoke last are shown
            latest = sorted(workers, key=lambda worker: -worker.seen)[: columns * rows]
            workers = sorted(latest, key=lambda worker: worker.index)
        widths = _split(width - 3 * (columns - 1), columns)
        for row, tall in enumerate(_split(height, rows)):
            shown = workers[row * columns : (row + 1) * columns]
            if len(shown) < columns and rows > 1:  # the last row's panes take all of its width
                widths = _split(width - 3 * (len(shown) - 1), len(shown))
            panes = [self._pane(console, worker, wide, tall) for worker, wide in zip(shown, widths, strict=False)]
            for at in range(tall):
                line = Text()
                for place, (pane, wide) in enumerate(zip(panes, widths, strict=False)):
                    if place:
                        line.append("─┬─" if at == 0 and row == 0 else "─┼─" if at == 0 else " │ ", "dim")
                    line.append_text(_fit(pane[at], wide))
                yield line

    def _pane(self, console: Console, worker: WorkerState, width: int, height: int) -> list[Text]:
        """A heading and the last lines of a worker: ``height`` lines."""
        quiet = self._state.quiet(worker)
        heading = Text(style=colour(worker.index))
        heading.append(f"{worker.name} ", "dim" if quiet else "bold")
        looping = f"{worker.looping.words} " if worker.looping else ""
        for note in (looping, f"{worker.moved} shared " if worker.moved else "", f"{len(worker.picked)} tokens "):
            if note and heading.cell_len + len(note) + 2 <= width:
                heading.append(note, "dim")
        heading.append("─" * max(0, width - heading.cell_len), "dim")
        room = height - 1
        shown: list[Text] = []
        for line in reversed(worker.lines):
            if len(shown) >= room:
                break
            if line.text.strip():
                shown[:0] = _wrapped(console, line, worker, width)
        shown = shown[-room:] if room > 0 else []
        return [heading, *shown, *(Text("") for _ in range(room - len(shown)))]


def shape(panes: int, width: int, height: int) -> tuple[int, int]:
    """How many columns and rows of panes: comfortable ones if possible, else as many as can be read."""
    for least, tall in ((_COMFORT, 4), (_TIGHT, 4), (_TIGHT, 2)):
        most = max(1, (width + 3) // (least + 3))
        for columns in range(min(most, panes), 0, -1):
            rows = -(-panes // columns)
            balanced = -(-panes // rows)  # five panes are three and two rather than four and one
            if height // rows >= tall and (columns == balanced or balanced <= most):
                return balanced, rows
    most = max(1, (width + 3) // (_TIGHT + 3))
    return min(most, panes), max(1, min(height // 2, -(-panes // most)))


def line_text(line: TextLine, worker: WorkerState, style: str = "") -> Text:
    """A line of a worker; what it was given stands in the worker's colour."""
    parts = [(words, colour(worker.index)) if given else words for words, given in line.parts]
    return Text.assemble(*parts, style=style)


def _wrapped(console: Console, line: TextLine, worker: WorkerState, width: int) -> list[Text]:
    key = (width, line.done)
    if line.wrapped is None or line.wrapped[0] != key:
        style = "dim" if line.done else ""
        text = line_text(line, worker, style)
        if line.done and line.first:
            text = Text("✓ ", style).append_text(text)
        if len(text) > 2 * _LONG:
            text = text[len(text) // _LONG * _LONG - _LONG :]
        line.wrapped = (key, list(text.wrap(console, width, overflow="fold")))
    return line.wrapped[1]


def _split(total: int, parts: int) -> list[int]:
    """``total`` in ``parts`` whole numbers that differ by one at most."""
    return [total // parts + (at < total % parts) for at in range(parts)]


def _fit(line: Text, width: int) -> Text:
    """``line`` in exactly ``width`` cells."""
    fitted = line.copy()
    fitted.rstrip()
    fitted.truncate(width, overflow="ellipsis", pad=True)
    return fitted
