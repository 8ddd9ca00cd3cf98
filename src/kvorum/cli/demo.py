"""`kvorum demo`: what one cache under many rows is good for, shown on a text that ships with the package.

Eight questions of the text side by side, then one after the other; a form filled from it; and a short team that
organises itself, which is research and says so.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from kvorum.cli.arguments import choose_model, is_exact, load_options
from kvorum.cli.display.lines import lines
from kvorum.cli.display.state import ShownRun
from kvorum.cli.planned_run import load, terminable
from kvorum.jsontypes import JsonObject
from kvorum.wording import harmless, plural

if TYPE_CHECKING:
    from argparse import Namespace

    from rich.console import Console
    from rich.table import Table

    from kvorum.api import Engine
    from kvorum.harness.asked import Asked
    from kvorum.store.events import Event
    from kvorum.store.kept_blocks import KeptBlocks

QUESTIONS = (
    "How many members were present?",
    "What did the new water pump cost?",
    "For how many days were the plots without water?",
    "How many votes were there for the bees?",
    "On which date is the summer feast?",
    "How many guests came to the feast last year?",
    "What is the fine for bringing tools back late?",
    "Who was elected treasurer?",
)
RIGHT = ("23", "1,310", "nine", "18", "12 June 2027", "140", "5 euros", "Irena Novak")
"""What each answer must say to be right; shown beside it, for a model may be wrong."""
TOKENS = 40
TEAM_PROBLEM, TEAM_RIGHT = "A ticket for the zoo costs 9 euros. What do 10 tickets cost, in euros?", "90"
TEAM_TICKS = 96


class Answered(NamedTuple):
    """One way of asking all questions: the answers, and the seconds and ticks of all of them."""

    asked: Asked
    seconds: float
    ticks: int

    @property
    def known(self) -> bool:
        """Whether the text, or a part of it, was kept from before."""
        return self.asked.loaded > 0

    @property
    def answering(self) -> float:
        """The seconds behind the text."""
        return self.seconds - self.asked.seconds


def demo(args: Namespace) -> int:
    """Show it. Returns the exit code."""
    from rich.console import Console

    from kvorum.engine.budget import Budget
    from kvorum.programs import find
    from kvorum.store.kept_blocks import KeptBlocks

    kept = KeptBlocks()
    console = Console(highlight=False, quiet=args.json)
    with terminable():
        engine = load(
            choose_model(args.model, exact=is_exact(args)),
            load_options(args),
            ShownRun(),
            lambda: None,
            quiet=args.json,
        )
        text = (files("kvorum.examples") / "minutes.md").read_text(encoding="utf-8")
        schema = json.loads((files("kvorum.examples") / "minutes.schema.json").read_text(encoding="utf-8"))
        _head(console, "1  Eight questions of one text, side by side", "the text is read once; each question is a row")
        together = _ask(engine, text, console, rows=None, kept=kept)
        _head(console, "2  The same, one after the other", "as a loop over calls does it")
        apart = _ask(engine, text, console, rows=1, kept=kept)
        console.print(compared(together, apart))
        _head(
            console,
            "3  A form filled from it, all fields at once",
            "each under its own grammar; what is not said is null",
        )
        started = time.perf_counter()
        filled = engine.fields(text, schema, kept=kept)
        seconds = time.perf_counter() - started
        console.print_json(json.dumps(filled.value), ensure_ascii=False)
        console.print(f"{plural(len(schema['properties']), 'field')} in {seconds:.1f} s")
        words = "research: models of this size are poor team players, and one worker does better"
        _head(console, "4  Two workers that read along with each other", words)
        state = ShownRun()
        with nullcontext(state.feed) if args.json else lines(state) as listener:
            team = engine.run(
                find("hogwild"), TEAM_PROBLEM, workers=2, budget=Budget(ticks=TEAM_TICKS), seed=1, listener=listener
            )
        console.print(f"answer: {harmless(team.answer or 'none')} (right: {TEAM_RIGHT})")
        console.print('\nYours: kvorum ask FILE -q "..." -q "..."   ·   kvorum --help', style="bold")
    if args.json:
        print(json.dumps(_as_json(together, apart, filled.value, seconds, team.answer), ensure_ascii=False))
    return 0


def _head(console: Console, title: str, words: str) -> None:
    console.print(f"\n[bold]{title}[/bold]\n[dim]{words}[/dim]")


def _ask(engine: Engine, text: str, console: Console, *, rows: int | None, kept: KeptBlocks) -> Answered:
    """Ask all questions, the answers growing on the screen."""
    from rich.live import Live

    from kvorum.engine.budget import Budget
    from kvorum.programs import find
    from kvorum.sampling.sampling import Sampling

    state = ShownRun()

    def run(listener: Callable[[Event], None]) -> Answered:
        started = time.perf_counter()
        result = engine.run(
            find("ask"),
            "\n".join(QUESTIONS),
            workers=rows,
            kept=kept,
            budget=Budget(),
            sampling=Sampling(),
            listener=listener,
            documents={"minutes": text},
            questions=list(QUESTIONS),
            tokens=TOKENS,
        )
        return Answered(result.product, time.perf_counter() - started, result.ledger.ticks)

    if not console.is_terminal or console.quiet:
        found = run(state.feed)
        console.print(_table(state, found.asked))
    else:
        with Live(console=console, refresh_per_second=8, get_renderable=lambda: _table(state)) as live:
            found = run(state.feed)
            live.update(_table(state, found.asked), refresh=True)
    answers = sum(answer.tokens for answer in found.asked.answers)
    how = (
        f"loaded, for it was kept, in {found.asked.seconds:.1f} s"
        if found.known
        else f"read in {found.asked.seconds:.1f} s"
    )
    console.print(
        f"{found.asked.tokens} tokens of text {how}; {answers} tokens of answers in {found.answering:.1f} s and "
        f"{plural(found.ticks, 'tick')}"
    )
    return found


def _table(state: ShownRun, asked: Asked | None = None) -> Table:
    """Each question with what is written of its answer so far; at the end with its time and whether it is right."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(ratio=2)
    table.add_column(ratio=3)
    table.add_column(justify="right", no_wrap=True)
    with state.lock:
        written = {name: "".join(worker.picked) for name, worker in state.workers.items()}
    for at, question in enumerate(QUESTIONS):
        answer = Text(harmless(written.get(f"q{at + 1}", "")).strip(), "cyan")
        took = ""
        if asked is not None:
            one = asked.answers[at]
            took = f"{one.seconds:.1f} s {'✓' if is_right(at, one.text) else '✗'}"
        table.add_row(question, answer, took)
    return table


def compared(together: Answered, apart: Answered) -> str:
    """What side by side gains; with the reading, too, where the text was read, for the other way needs that as well."""
    fast, slow = together.answering, apart.answering
    words = (
        f"[bold green]Side by side the answers came {slow / fast:.1f} times faster[/bold green]: {fast:.1f} s against "
        f"{slow:.1f} s."
    )
    if together.known:
        return words
    read = together.asked.seconds
    whole = f"{read + fast:.1f} s against {read + slow:.1f} s"
    return f"{words} A text that is not known yet is read first, either way: {whole}."


def _as_json(
    together: Answered, apart: Answered, form: JsonObject, form_seconds: float, team: str | None
) -> JsonObject:
    def told(one: Answered) -> JsonObject:
        return {**one.asked.as_dict(), "seconds": one.seconds, "read_seconds": one.asked.seconds, "ticks": one.ticks}

    return {
        "side_by_side": told(together),
        "one_by_one": told(apart),
        "right": sum(is_right(at, answer.text) for at, answer in enumerate(together.asked.answers)),
        "form": form,
        "form_seconds": form_seconds,
        "team_answer": team,
    }


def is_right(at: int, answer: str | None) -> bool:
    """Whether the answer to that question says what is right."""
    return RIGHT[at].casefold() in (answer or "").casefold()
