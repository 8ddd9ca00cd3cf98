"""`kvorum decide`: typed questions about a file, answered by probabilities; and calibrations for such answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from kvorum.cli.arguments import check_writable, choose_model, is_exact, load_options
from kvorum.cli.display.state import ShownRun
from kvorum.cli.planned_run import load, terminable
from kvorum.cli.solve import parse_budget, read_problem
from kvorum.errors import BadRequest
from kvorum.wording import brief, count, harmless, plural

if TYPE_CHECKING:
    from argparse import Namespace

    from kvorum.api import Engine
    from kvorum.harness.decisions.answers import Decision, Decisions
    from kvorum.harness.decisions.calibration import Calibration
    from kvorum.harness.decisions.decide import Way
    from kvorum.harness.decisions.questions import Question
    from kvorum.jsontypes import Json

BAR = 20
"""Characters of a probability of 1."""


def decide(args: Namespace) -> int:
    """Ask the questions and print a table, or fit a calibration. Exit code 1: the budget ended before an answer."""
    model = choose_model(args.model, exact=is_exact(args))
    for file in (args.trace, args.output):
        if file is not None:
            check_writable(file)
    if args.calibrate is not None:
        return _calibrate(args, model)
    from kvorum.harness.decisions.calibration import read_calibration
    from kvorum.store.kept_blocks import KeptBlocks
    from kvorum.store.kept_files import read_size

    if args.output is not None:
        raise BadRequest("--output is where --calibrate writes; give the labelled cases too.")
    if not args.files and sys.stdin.isatty():
        raise BadRequest('Say what it is about: kvorum decide FILE -q "QUESTION", or - for standard input.')
    questions = read_all_questions(args)
    blocks = _block_files(args.files)
    words = "" if blocks else read_state(args.files or ["-"])
    kept = KeptBlocks(most=None if args.kept is None else read_size(args.kept, "--kept"))
    known = None if args.calibration is None else read_calibration(_read_json(args.calibration))
    budget = parse_budget(args.budget)
    engine = load(model, load_options(args), ShownRun(), lambda: None, quiet=args.json)
    if known is not None and known.model != engine.name:
        raise BadRequest(f"{args.calibration} was fitted on {known.model}, and this is {engine.name}; fit it anew.")
    with terminable():
        found = engine.decide(
            [engine.load_block(file) for file in blocks] or words,
            questions,
            **_way(args),
            calibration=known,
            budget=budget,
            kept=kept,
            trace=args.trace,
            sees=args.sees,
        )
    _print_json(found, engine) if args.json else _print_table(found)
    if found.spent is not None:
        left = plural(len(questions) - len(found), "question")
        print(f"kvorum: the budget's {found.spent} ended before {left} could be asked.", file=sys.stderr)
    return 0 if len(found) == len(questions) else 1


def _block_files(files: Sequence[str]) -> list[Path]:
    """The files, where they are saved blocks and not texts.

    Raises:
        BadRequest: some are and some are not, one is named twice, or is not there.
    """
    blocks = [Path(file) for file in dict.fromkeys(files) if file.endswith(".safetensors")]
    if blocks and len(blocks) < len(files):
        raise BadRequest(
            "Saved blocks and texts cannot be asked about together, nor a block twice; name one or the other."
        )
    if gone := next((block for block in blocks if not block.is_file()), None):
        raise BadRequest(f"There is no file {gone}.")
    return blocks


def read_state(files: Sequence[str]) -> str:
    """The text of the files, each under its name where there are several; what could not be read is told on standard
    error.

    Raises:
        BadRequest, MissingExtra: a file cannot be read.
    """
    from kvorum.harness.documents import given_documents, read_documents
    from kvorum.harness.shared_text import document_texts

    _, texts, remarks = given_documents(read_documents(files))
    for name, remark in remarks.items():
        print(f"kvorum: {f'{name}: ' * (len(texts) > 1)}{harmless(remark)}.", file=sys.stderr)
    return "".join(document_texts(texts, remarks).values()).rstrip()


def read_all_questions(args: Namespace) -> list[Question]:
    """Those of -q and those of the file, in this order, with names.

    Raises:
        BadRequest, UnknownName: there are none, or one is none; the message names it.
    """
    from kvorum.harness.decisions.questions import YesNo, named
    from kvorum.harness.decisions.wire import read_questions

    found: list[Question] = []
    for words in args.question:
        if args.choices is not None:
            found += read_questions([{"type": "choice", "instructions": words, "choices": _listed(args.choices)}])
        elif args.levels is not None:
            found += read_questions([{"type": "score", "instructions": words, "levels": _listed(args.levels)}])
        else:
            found.append(YesNo(words))
    if args.questions is not None:
        text = read_problem(None, args.questions)
        if text.lstrip().startswith(("{", "[")):
            found += read_questions(_parsed(text, args.questions))
        else:
            found += read_questions([line.strip() for line in text.splitlines() if line.strip()])
    if not found:
        raise BadRequest('There is no question; ask with -q "QUESTION" or -Q FILE.')
    return named(found)


def _calibrate(args: Namespace, model: str) -> int:
    from kvorum.harness.decisions.calibration import Case, fit
    from kvorum.harness.decisions.cases import read_cases
    from kvorum.harness.decisions.decide import Asking

    cases = read_cases(read_problem(None, args.calibrate), args.calibrate)
    engine = load(model, load_options(args), ShownRun(), lambda: None, quiet=args.json)
    way = _way(args)
    decided = []
    for at, case in enumerate(cases):
        if sys.stderr.isatty():
            print(f"\r{at + 1} of {len(cases)} states", end="", file=sys.stderr, flush=True)
        with terminable():
            found = engine.decide(case.state, list(case.questions), sees=args.sees, **way)
        decided += [Case(decision, right, at) for decision, right in zip(found, case.right, strict=True)]
    if sys.stderr.isatty():
        print(file=sys.stderr)
    made = fit(decided, Asking(**way), engine.name)
    if args.output is not None:
        Path(args.output).write_text(json.dumps(made.as_json(), indent=1) + "\n", encoding="utf-8")
    if args.json or args.output is None:
        print(json.dumps(made.as_json(), indent=None if args.json else 1))
    if not args.json:
        _say_gain(made, sys.stderr if args.output is None else sys.stdout)
    return 0


def _way(args: Namespace) -> Way:
    """How questions are asked, as far as it was said; a calibration says it itself."""
    given: Way = {}
    if args.orders is not None:
        given["orders"] = args.orders
    if args.order_by is not None:
        given["order_by"] = args.order_by
    if args.prior is not None:
        given["prior"] = args.prior
    if args.calibration is not None and given:
        raise BadRequest(
            f"A calibration says how questions are asked; leave out --{next(iter(given)).replace('_', '-')}."
        )
    return given


def _listed(words: str) -> list[Json]:
    """``a,b,c``, or a list in JSON."""
    if words.lstrip().startswith("["):
        found = _parsed(words, "The list")
        return list(found) if isinstance(found, Sequence) else []
    return [part.strip() for part in words.split(",")]


def _parsed(text: str, where: str) -> Json:
    try:
        found: Json = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadRequest(f"{where} is no JSON: {error}.") from error
    return found


def _read_json(file: str) -> Json:
    return _parsed(read_problem(None, file), file)


def _print_json(found: Decisions, engine: Engine) -> None:
    shown = [_as_json(decision) for decision in found]
    ledger = found.ledger.as_dict()
    print(json.dumps({"model": engine.name, "decisions": shown, "spent": found.spent, "ledger": ledger}))


def _as_json(decision: Decision) -> dict[str, Json]:
    pairs = zip(decision.question.answers, decision.probabilities, strict=True)
    score = {"score": decision.score} if decision.question.kind == "score" else {}
    return {
        "name": decision.name,
        "type": decision.question.kind,
        "question": decision.question.text,
        "answer": decision.value,
        **score,
        "probabilities": [{"value": option.value, "probability": share} for option, share in pairs],
        "margin": decision.margin,
        "confidence": decision.confidence,
        "mass": decision.mass,
        "orders": decision.orders,
    }


def _print_table(found: Decisions) -> None:
    from rich.table import Table
    from rich.text import Text

    from kvorum.cli.tables import show_table

    table = Table(box=None, pad_edge=False)
    for head in ("question", "answer", "probability", "margin", "others"):
        table.add_column(head, justify="right" if head == "margin" else "left")
    for decision in found:
        top = max(decision.probabilities)
        bar = f"{'█' * round(top * BAR):░<{BAR}} {top:6.1%}"
        others = sorted(((share, label) for label, share in decision.shares.items() if label != decision.label))[::-1]
        said = ", ".join(f"{harmless(label)} {share:.1%}" for share, label in others[:3])
        table.add_row(
            Text(harmless(brief(decision.question.text))),
            Text(harmless(_answer(decision)), "bold"),
            bar,
            f"{decision.margin:.2f}",
            Text(said + (f", {len(others) - 3} more" if len(others) > 3 else ""), "dim"),
        )
    show_table(table)
    spent = found.ledger
    print(f"{plural(spent.ticks, 'tick')}, {plural(spent.tokens, 'token')}, {spent.seconds:.1f} s")


def _answer(decision: Decision) -> str:
    """The answer in words; of a score its likeliest level and the expected one."""
    if decision.question.kind != "score":
        return decision.label
    meaning = decision.question.answers[decision.best].description
    return f"{decision.label} ({meaning}), expected {decision.score:.2f}"


def _say_gain(made: Calibration, stream: TextIO) -> None:
    kinds = ", ".join(f"{kind} {value:g}" for kind, value in made.temperatures.items()) or "none: too few of each kind"
    print(f"temperatures from {count(made.cases)} answers: {kinds}", file=stream)
    for name in made.before:
        print(
            f"  {name:9}{made.before[name]:.3f} -> {made.after[name]:.3f} on answers left out of the fit", file=stream
        )
