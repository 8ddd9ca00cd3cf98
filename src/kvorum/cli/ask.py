"""`kvorum ask`: many questions of files, answered side by side; at the end each question with its answer and time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kvorum.cli.arguments import check_writable, choose_model, is_exact, load_options
from kvorum.cli.planned_run import perform
from kvorum.cli.solve import parse_budget
from kvorum.engine.budget import Budget
from kvorum.errors import BadRequest
from kvorum.wording import brief, count, harmless, plural

if TYPE_CHECKING:
    from argparse import Namespace

    from rich.console import Console

    from kvorum.api import Engine
    from kvorum.cli.display.state import ShownRun
    from kvorum.harness.asked import Answer, Asked
    from kvorum.harness.documents import Document
    from kvorum.runs.run import Run
    from kvorum.runs.start import Result
    from kvorum.store.events import Event


def ask(args: Namespace) -> int:
    """Answer questions of files. Returns the exit code: 1 where a question has no answer."""
    planned = NewAsk(args)
    return perform(args, planned, planned.finish)


class NewAsk:
    """What `kvorum ask` was asked for; a `planned_run.PlannedRun`. Files are read as it is made."""

    def __init__(self, args: Namespace) -> None:
        from kvorum.harness.documents import given_documents, read_documents

        self.args = args
        self.questions = read_questions(args.questions, args.questions_file)
        found = read_documents(args.files)
        self.documents, self.texts, self.remarks = given_documents(found)
        self.budget = parse_budget(args.budget) or Budget()
        self.model, self.options = choose_model(args.model, exact=is_exact(args)), load_options(args)
        self.trace: str | None = args.trace
        if args.trace is not None:
            check_writable(args.trace)

    def check(self) -> None:
        """The numbers, as the program and what keeps texts take them."""
        from kvorum.programs import find
        from kvorum.sampling.sampling import Sampling
        from kvorum.store.kept_blocks import KeptBlocks
        from kvorum.store.kept_files import read_size

        self.program = find(self.args.command)
        self.params = {
            "documents": self.texts,
            "questions": self.questions,
            "remarks": self.remarks,
            "tokens": self.args.tokens,
            "rules": self.args.rules,
            "quote": self.args.quote,
            "split": self.args.split,
        }
        workers = self.program.workers_of(self.args.workers, self.params)
        self.program.check(self.params, workers=workers if isinstance(workers, int) else len(workers))
        self.sampling = Sampling(temperature=self.args.temperature)
        self.kept = KeptBlocks(most=None if self.args.kept is None else read_size(self.args.kept, "--kept"))

    def run(self, engine: Engine, listener: Callable[[Event], None], control: Callable[[Run], None]) -> Result:
        """Make the run; each of its events goes to ``listener``, the run itself to ``control``."""
        return engine.run(
            self.program,
            "\n".join(self.questions),
            workers=self.args.workers,
            budget=self.budget,
            sampling=self.sampling,
            seed=self.args.seed,
            kept=self.kept,
            trace=self.trace,
            listener=listener,
            control=control,
            **self.params,
        )

    def finish(self, result: Result, state: ShownRun, console: Console) -> int:
        """Print the answers. Returns the exit code."""
        from kvorum.harness.asked import placed

        if result.product is None:
            raise BadRequest(f"The budget of {self.args.budget} was spent before the text was read; give a larger one.")
        asked = placed(result.product, self.documents)
        if self.args.json:
            print_json(asked, result, state, self.trace)
        else:
            print_answers(asked, console, seconds=result.seconds, quiet=self.args.quiet, documents=self.documents)
            if self.trace is not None and not self.args.quiet:
                print(f"trace   {self.trace}")
        return 0 if asked.complete else 1


def read_questions(given: Sequence[str], file: str | None) -> list[str]:
    """The questions of the command line, then those of a file, a line each; empty lines are left out.

    Raises:
        BadRequest: there is none, one is empty, or the file cannot be read.
    """
    from kvorum.harness.documents import read_document

    lines = [] if file is None else read_document(file).text.splitlines()
    questions = [*given, *(line.strip() for line in lines if line.strip())]
    if not questions:
        raise BadRequest("Say what to ask: -q QUESTION, as often as you like, or -Q FILE with one a line.")
    return questions


def print_json(asked: Asked, result: Result, state: ShownRun, trace: str | None) -> None:
    """The answers for machines: the fields of ``Asked``, then what was run and spent, and the trace's file."""
    start = state.start
    assert start is not None
    more = {
        "spent": result.spent,
        "model": start["model"],
        "seed": start["seed"],
        "ledger": result.ledger.as_dict(),
        "seconds": round(result.seconds, 3),
        "trace": trace,
    }
    print(json.dumps({**asked.as_dict(), "read_seconds": round(asked.seconds, 3), **more}, ensure_ascii=False))


def print_answers(
    asked: Asked, console: Console, *, seconds: float, quiet: bool, documents: dict[str, Document]
) -> None:
    """Each question with its answer, the sentence that supports it, and its seconds; then what it took."""
    from rich.padding import Padding
    from rich.text import Text

    for number, answer in enumerate(asked.answers, 1):
        if quiet and len(asked.answers) == 1:
            console.print(Text(harmless(answer.text or "")), soft_wrap=True)
            continue
        console.print(Text(harmless(f"{number}. {brief(answer.question)}"), "bold"), soft_wrap=not console.is_terminal)
        lines = [Text.assemble(harmless(answer.text or "no answer"), (_aside(answer), "dim"))]
        if (quote := answer.quote) is not None:
            words = " ".join(harmless(quote.text).split())
            place = harmless(f"{quote.document}, {quote.place}")
            lines.append(Text.assemble(("\u201c" + words + "\u201d", "italic"), (f" ({place})", "dim")))
        for line in lines:
            if console.is_terminal:
                console.print(Padding(line, (0, 0, 0, 3)))
            else:
                console.print(Text("   ").append_text(line), soft_wrap=True)
    if quiet:
        return
    for name, document in documents.items():
        if document.remark:
            console.print(Text(harmless(f"{name}: {document.remark}"), "yellow"), soft_wrap=not console.is_terminal)
    how = (
        f"read in {asked.seconds:.1f} s" if not asked.loaded else f"known from before, loaded in {asked.seconds:.2f} s"
    )
    if 0 < asked.loaded < asked.tokens:
        how = f"{count(asked.loaded)} of them known from before, the rest read: {asked.seconds:.1f} s"
    tokens = sum(answer.tokens for answer in asked.answers)
    facts = [
        ("text", f"{', '.join(documents)}: {count(asked.tokens)} tokens, {how}"),
        ("time", f"{plural(len(asked.answers), 'question')} in {seconds:.1f} s, {count(tokens)} tokens written"),
    ]
    for label, words in facts:
        console.print(Text.assemble((f"{label:7} ", "dim"), harmless(words)), soft_wrap=not console.is_terminal)


def _aside(answer: Answer) -> str:
    """The seconds of an answer, and why it ended if not by itself."""
    why = {
        "length": ", cut: --tokens gives more",
        "loop": ", cut: it went on in circles",
        "cut": ", cut by the budget",
        "none": "not asked: the budget was spent",
    }
    if answer.finish == "none":
        return f" ({why['none']})"
    return f" ({answer.seconds:.1f} s{why.get(answer.finish, '')})"
