"""`kvorum fields`: fill a form from one text, or the same form from many, one line of JSON each.

A file's error stands in its line and the others go on. With -o a line is known by file, content, form and model, and is
not made again.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kvorum.cli.arguments import check_writable, choose_model, is_exact, load_options
from kvorum.cli.display.state import ShownRun
from kvorum.cli.planned_run import load, terminable
from kvorum.errors import BadRequest, KvorumError, OutOfPages
from kvorum.jsontypes import Json
from kvorum.own_program_names import is_own
from kvorum.wording import harmless, plural

if TYPE_CHECKING:
    from argparse import Namespace

    from kvorum.api import Engine
    from kvorum.harness.documents import Document
    from kvorum.harness.forms.filled import FilledForm
    from kvorum.harness.forms.schema_sources import SchemaClass
    from kvorum.store.result_lines import ResultLines

KEYS = ("file", "text", "form", "model")
"""What a line of results is known by: the file's name, and marks of its content, of the form and of the model."""


def fields(args: Namespace) -> int:
    """Fill the form from each file. Returns the exit code: 1 where one of them could not be filled."""
    return FormJob(args).run()


class FormJob:
    """What `kvorum fields` was asked for. Raises as it is made for what can be told without the model."""

    def __init__(self, args: Namespace) -> None:
        from kvorum.harness.forms.form import Form
        from kvorum.harness.forms.schema_sources import schema_object, schema_text

        self.args = args
        self.files = list(dict.fromkeys(args.files))
        self.made: SchemaClass[Json] | None = None
        """The class that the result must fit, if the form is one's own."""
        if is_own(args.schema):
            self.made = own_class(args.schema)
        self.schema = schema_text(self.made or read_schema_file(args.schema))
        Form(schema_object(self.schema))
        if args.output is not None:
            check_writable(args.output)
        self.model = choose_model(args.model, exact=is_exact(args))
        self.many = len(self.files) > 1 or args.output is not None

    def run(self) -> int:
        """Load the model and fill all that is not filled yet."""
        from kvorum.store.result_lines import ResultLines

        args = self.args
        lines = None if args.output is None else ResultLines(Path(args.output), KEYS)
        failed = done = 0
        engine: Engine | None = None
        options, state = load_options(args), ShownRun()
        with terminable():
            for number, file in enumerate(self.files):
                try:
                    line, document = self._begun(file)
                    if lines is not None and lines.has(line):
                        continue
                    if engine is None:
                        engine = load(self.model, options, state, lambda: None, quiet=args.quiet)
                    with self._progress(f"{number + 1} of {len(self.files)}: {file}"):
                        line = self._filled(engine, document, line)
                except KeyboardInterrupt:
                    more = "; the same command goes on" if lines is not None else ""
                    raise KeyboardInterrupt(f"stopped after {plural(done, 'file')}{more}") from None
                except (KvorumError, OSError) as error:
                    if not self.many or (engine is None and not isinstance(error, BadRequest | OSError)):
                        raise
                    if isinstance(error, OutOfPages) and engine is not None:
                        error.add_note(f"give more with --kv-tokens {2 * engine.backend.cache.slots}")
                    failed += 1
                    line = {"file": file, "text": None, "form": self._form_mark(), "model": self.model}
                    line["error"] = " ".join([str(error), *getattr(error, "__notes__", [])])
                done += 1
                self._put(line, lines)
        return 1 if failed else 0

    def _begun(self, file: str) -> tuple[dict[str, Json], Document]:
        """A file's line as far as it is known by, and its document."""
        from kvorum.harness.documents import read_document

        document = read_document(file)
        mark = hashlib.sha256(document.text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return {"file": file, "text": mark, "form": self._form_mark(), "model": self.model}, document

    def _form_mark(self) -> str:
        how = [self.schema, self.args.sees, self.args.tokens]
        return hashlib.sha256(json.dumps(how).encode()).hexdigest()[:16]

    def _filled(self, engine: Engine, document: Document, line: dict[str, Json]) -> dict[str, Json]:
        from kvorum.store.kept_blocks import KeptBlocks

        args, started = self.args, time.perf_counter()
        filled: FilledForm = engine.fields(
            document,
            self.schema,
            sees=args.sees,
            confidence=args.confidence,
            tokens=args.tokens,
            rows=args.workers,
            kept=None if self.many else KeptBlocks(),
        )
        if self.made is not None:
            try:
                self.made.model_validate(filled.value)
            except ValueError as error:
                raise BadRequest(f"{self.args.schema} does not take what was filled in: {error}") from None
        notes: dict[str, Json] = dict(filled.notes)
        if document.remark:
            notes[""] = document.remark
        line |= {"value": filled.value, "notes": notes, "seconds": round(time.perf_counter() - started, 3)}
        if args.confidence:
            line["confidence"] = {name: round(chance, 4) for name, chance in filled.confidence.items()}
        return line

    def _put(self, line: Mapping[str, Json], lines: ResultLines | None) -> None:
        """Write or print a line; of a single file the object alone, with remarks on standard error."""
        if lines is not None:
            lines.append(line)
        elif self.many or self.args.json:
            print(json.dumps(line, ensure_ascii=False), flush=True)
        else:
            print(json.dumps(line["value"], ensure_ascii=False, indent=2), flush=True)
            self._remark(line)
        if self.many and "error" in line and not self.args.quiet:
            print(f"kvorum: {harmless(str(line['file']))}: {harmless(str(line['error']))}", file=sys.stderr)

    def _remark(self, line: Mapping[str, Json]) -> None:
        notes, chances = line["notes"], line.get("confidence")
        assert isinstance(notes, Mapping)
        for name, note in notes.items() if not self.args.quiet else ():
            print(f"kvorum: {harmless(name)}{': ' * bool(name)}{harmless(str(note))}", file=sys.stderr)
        if isinstance(chances, Mapping):
            for name, chance in chances.items():
                print(f"{chance:6.1%}  {harmless(name)}", file=sys.stderr)

    @contextmanager
    def _progress(self, words: str) -> Iterator[None]:
        """A line on a terminal's standard error while a file is being read."""
        if self.args.quiet or not sys.stderr.isatty():
            yield
            return
        from rich.console import Console

        with Console(stderr=True).status(harmless(words)):
            yield


def read_schema_file(file: str) -> str:
    """The JSON text of a schema's file. Raises BadRequest: it cannot be read, or is no text."""
    try:
        return Path(file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise BadRequest(f"The schema {file} is not UTF-8 text.") from None
    except OSError as error:
        raise BadRequest(f"The schema {file} cannot be read: {error.strerror}.") from None


def own_class(where: str) -> SchemaClass[Json]:
    """The class of pydantic at ``file.py:Class`` or ``package.module:Class``.

    Raises:
        ProgramError: the file or module cannot be imported. BadRequest: it has no such class.
    """
    from kvorum.harness.own_modules import own_module

    place, _, name = where.rpartition(":")
    found: SchemaClass[Json] | None = getattr(own_module(place or where), name, None)
    if found is None or not hasattr(found, "model_json_schema"):
        raise BadRequest(f"{where} is no class of pydantic; write FILE.py:CLASS or PACKAGE.MODULE:CLASS.")
    return found
