"""Filling a form from the library: what may be said of it, and the run that does it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypedDict

from kvorum.engine.budget import Budget
from kvorum.harness.documents import Document, given_documents
from kvorum.harness.forms.filled import FilledForm
from kvorum.harness.forms.schema_sources import Made, SchemaClass, schema_text
from kvorum.jsontypes import JsonObject
from kvorum.runs.program import Program
from kvorum.runs.start import Result
from kvorum.sampling.sampling import Sampling
from kvorum.store.kept_blocks import KeptBlocks


class FormOptions(TypedDict, total=False):
    """How a form is filled: the parameters of the program ``fields``, and what any run has."""

    sees: Literal["none", "earlier", "live"]
    """Whether fields see each other; default none."""
    confidence: bool
    """Whether to tell the probability of each field."""
    tokens: int
    """The most tokens of a field; default 96."""
    rows: int | None
    """How many fields are written at once; default up to 16."""
    kept: KeptBlocks | None
    """Where the text is looked for encoded, and kept, on disk; default nowhere."""
    sampling: Sampling | None
    """Default greedy."""
    budget: Budget | None
    """Default none."""


def fill_form(
    run: Callable[..., Result],
    program: Program,
    text: str | Path | Document,
    schema: SchemaClass[Made] | str | JsonObject,
    options: FormOptions,
) -> FilledForm:
    """The form that ``program`` fills from the text, in a run that ``run`` makes.

    Raises:
        BadRequest: no such file, too long a text, a schema that cannot be filled. NotFilled: a field that must be there
            could not be filled.
    """
    _, texts, _ = given_documents(text)
    result = run(
        program,
        *texts.values(),
        workers=options.get("rows"),
        kept=options.get("kept"),
        sampling=options.get("sampling") or Sampling(),
        budget=options.get("budget") or Budget(),
        schema=schema_text(schema),
        sees=options.get("sees", "none"),
        confidence=options.get("confidence", False),
        tokens=options.get("tokens", 96),
    )
    filled: FilledForm = result.product
    return filled.checked()
