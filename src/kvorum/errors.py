"""The named errors of kvorum. Each says in one sentence what is wrong and what to do."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


class KvorumError(Exception):
    """Base of every error that kvorum raises on purpose."""

    param: str | None = None
    """The program's parameter that it is about, if it is about one; of a program inside another as ``outer.inner``."""


class ViewError(KvorumError, ValueError):
    """A view, span or row that cannot be: raised before anything is written."""


class SpanOutOfRange(ViewError):
    """A span reaches outside the tokens of its block."""


class SeenTwice(ViewError):
    """The same token stands twice in one view."""


class NotWritable(ViewError):
    """A row's view does not end in the open end of a block."""


class SealedBlock(ViewError):
    """A write to a block that was sealed."""


class TwoWriters(ViewError):
    """Two rows of one tick write to the same block."""


class BadRow(ViewError):
    """A row without new tokens, with both ids and embeddings, or with ids or embeddings that are not the model's."""


class ForeignBlock(ViewError):
    """A block of another engine."""


class ViewTooLong(ViewError):
    """A view longer than the positions for which the model's rotation is exact."""


class OutOfPages(KvorumError, MemoryError):
    """The page pool is full. Nothing was written; drop views or blocks and run the same tick again."""


class BlockMismatch(KvorumError, ValueError):
    """A saved block that cannot be loaded: it is not there, damaged, or of another model, dtype or file format."""


class UnsupportedModel(KvorumError, ValueError):
    """A model that cannot be exact over views."""


class UnknownName(KvorumError, LookupError):
    """A model, program or layout that is not known; the message lists the near ones."""


class ModelFileError(KvorumError, OSError):
    """A model that could not be fetched, verified, converted, cached or read."""


class LicenceNotAccepted(ModelFileError):
    """A model whose licence must be accepted before it is fetched."""


class OtherVersion(ModelFileError):
    """A file of the model cache that a later kvorum wrote."""


class BadRequest(KvorumError, ValueError):
    """A parameter outside its range."""


class StoreFailed(KvorumError, OSError):
    """A file of what is kept, such as a memory, that could not be read or written; nothing in it was changed."""


class NotAllowed(KvorumError, PermissionError):
    """Something that whoever asked for it may not do: replace what a person has written, run a script of a skill."""


class GrammarError(KvorumError, ValueError):
    """A text that left its grammar."""


class GrammarTooCostly(GrammarError, BadRequest):
    """A grammar, such as an ambiguous one, that cannot be followed any further within its limits."""


class GrammarUnwritable(GrammarError, BadRequest):
    """A grammar that wants characters for which the model's vocabulary has no tokens."""


class ProgramError(KvorumError):
    """A program of somebody's own that cannot be imported or failed; the message shows its file, line and statement."""


class VerifierError(KvorumError):
    """A task's verifier that failed or gave no number; the message shows its file, line and statement."""


class BadTrace(KvorumError, ValueError):
    """A trace that cannot be read or does not belong to this model."""


class MissingExtra(KvorumError, ImportError):
    """An optional package is not installed; the message says which extra brings it."""


def need(module: str, who: str, extra: str) -> ModuleType:
    """Import a module of an optional package, which ``who`` needs. Raises MissingExtra where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingExtra(f"{who} needs {package}; install it with: pip install 'kvorum[{extra}]'.") from error


class WorkersLost(KvorumError, RuntimeError):
    """The processes that hold an engine's model have died, hang, or could not be started. The engine is of no more use;
    a run of it that has a trace can be resumed on another."""


class BenchError(KvorumError):
    """An engine of a bench that could not be started, refused, took too long or died; the message says which."""
