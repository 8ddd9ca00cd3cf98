"""The events of a trace, as types: one JSON object each, told apart by ``event``.

Blocks have numbers of the run's own, counted as its trace first speaks of them. Workers are called by their names,
those of a run inside another run "label/name". Times are seconds of computing since the run began. Not covered: how
events are written (``runs.trace``), read and checked (``store.traces``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Literal, NotRequired, TypeAlias, TypedDict, cast

from kvorum.engine.budget import BudgetData as BudgetData
from kvorum.engine.budget import LedgerData as LedgerData
from kvorum.jsontypes import Json, JsonObject
from kvorum.store.model_data import ModelData as ModelData

ViewItem: TypeAlias = "tuple[str, int, int | None, int | None, int] | tuple[str, int, int | None, int, int, int]"
"""(name, lo, hi or None: open, block number, block length, place if placed); of a gap ("gap", 0, n, None, n)."""
FedRow: TypeAlias = "tuple[int, int]"
"""A row that picks nothing: (number of the block it writes to, how many tokens)."""
MovedSpan: TypeAlias = "tuple[int, int, int]"
"""Tokens that were moved: (block number, from token, to token)."""


class SamplingData(TypedDict):
    """How workers pick their tokens (``sampling.sampling.Sampling``). From version 3 on with all that may be missing;
    the ids of ``logit_bias`` are text in a file."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    seed: int | None
    banned: Sequence[int]
    repetition_penalty: NotRequired[float]
    frequency_penalty: NotRequired[float]
    presence_penalty: NotRequired[float]
    penalty_last_n: NotRequired[int]
    dry_multiplier: NotRequired[float]
    dry_base: NotRequired[float]
    dry_allowed_length: NotRequired[int]
    dry_penalty_last_n: NotRequired[int]
    dry_sequence_breakers: NotRequired[Sequence[str]]
    logit_bias: NotRequired[Mapping[int, float]]


class GrammarData(TypedDict):
    """What the texts are held to (``sampling.grammar.Grammar``)."""

    kind: str
    text: str
    separators: Sequence[str]
    mark: str


class InjectionData(TypedDict):
    """One injection (``runs.injection.Injection``)."""

    kind: str
    worker: str
    fault: str
    turn: int
    at: int
    text: str
    end: bool
    to: str
    lag: int | None


class TaskData(TypedDict):
    """The task within the start event; ``private``: what one worker alone is told, by its name."""

    prompt: str
    name: str
    private: NotRequired[Mapping[str, str]]


class StartEvent(TypedDict):
    """The first event: everything that determines the run."""

    event: Literal["start"]
    format: int
    program: str
    where: NotRequired[str]
    """The file or module of a program that is not kvorum's: ``file.py:name``."""
    params: JsonObject
    task: TaskData
    workers: list[str]
    budget: BudgetData
    sampling: SamplingData
    grammar: NotRequired[GrammarData]
    """Of the sampling, where it has one."""
    seed: int
    model: ModelData
    ends: list[int]
    versions: Mapping[str, str]
    time: NotRequired[str]
    """The moment that chat templates print in this run, local time; from version 2 on."""
    thinking: NotRequired[bool]
    """Whether the chat template was told to let the model think; missing: nothing was said."""
    inject: NotRequired[list[InjectionData]]
    reseed: NotRequired[list[list[int]]]


class PromptEvent(TypedDict):
    """What the chat template made of something, from version 2 on; ``of`` is the mark of what it was given.

    ``ids``: of a conversation. ``around``: the text before and behind a user's words, where it is cut there.
    """

    event: Literal["prompt"]
    of: str
    ids: NotRequired[list[int]]
    around: NotRequired[list[str]]


class TickRow(TypedDict):
    """A worker's row of a tick: how many ids it was fed, the token that it picked, its text and log-probability.

    ``given``: text of fed ids that it had not picked. ``drafted``: tokens computed ahead with it. ``ahead``: it was.
    """

    worker: str
    fed: int
    given: NotRequired[str]
    token: int
    text: str
    logprob: float
    drafted: NotRequired[int]
    ahead: NotRequired[bool]


class TickEvent(TypedDict):
    """A tick in which workers picked tokens. ``also``: its rows of known tokens."""

    event: Literal["tick"]
    n: int
    seconds: float
    ledger: LedgerData
    rows: list[TickRow]
    also: NotRequired[list[FedRow]]


class ForwardEvent(TypedDict):
    """A tick that picks nothing, such as a prefill or a latent step."""

    event: Literal["forward"]
    n: int
    seconds: float
    tokens: int
    rows: list[FedRow]


class AttentionRow(TypedDict):
    """One worker's attention in a tick: ``shares[layer][owner]``, from 0 to 1."""

    worker: str
    shares: list[list[float]]


class AttentionEvent(TypedDict):
    """Behind the tick ``n``, where a tap is on: to whose words attention went. Owner "": nobody's, such as prompts."""

    event: Literal["attention"]
    n: int
    owners: list[str]
    rows: list[AttentionRow]


class ViewEvent(TypedDict):
    """A worker's view, where it has changed."""

    event: Literal["view"]
    worker: str
    items: list[ViewItem]


MoveEvent = TypedDict(
    "MoveEvent",
    {
        "event": Literal["move"],
        "worker": str,
        "tokens": int,
        "into": str,
        "block": int,
        "from": "list[MovedSpan]",
    },
)
"""Tokens that were appended to the block ``into``, of number ``block``, and from which spans."""


class NoteEvent(TypedDict):
    """What a program tells; further keys depend on ``kind`` (see ``note_data``). From version 4 on of kind "loop", too:
    a ``worker`` loops ``since`` a tick, by what ``period``, and has ``ended`` for it; or did so ``until`` one."""

    event: Literal["note"]
    kind: str


class CommandEvent(TypedDict):
    """What a person or caller asked for; taken up before tick ``tick``."""

    event: Literal["command"]
    tick: int
    kind: str
    worker: str
    text: str


class OutsideEvent(TypedDict):
    """What came from outside the model, such as a tool's result; ``n`` counts them."""

    event: Literal["outside"]
    n: int
    name: str
    value: Json


class FaultEvent(TypedDict):
    """An injected fault in the moment in which it first takes effect: its mode, whose it is, and what is done."""

    event: Literal["fault"]
    mode: str
    worker: str
    tick: int
    kind: str
    turn: NotRequired[int]
    at: NotRequired[int]
    text: NotRequired[str]
    end: NotRequired[bool]
    to: NotRequired[str]
    lag: NotRequired[int]


class AnswerEvent(TypedDict):
    """A final answer, in traces of earlier versions."""

    event: Literal["answer"]
    answer: str | None


class EndEvent(TypedDict):
    """The last event of a finished run. ``outcome``: "answered", "forced", "cut" (from version 3 on) or "none".
    ``spent``: the limit reached."""

    event: Literal["end"]
    outcome: str
    answer: str | None
    spent: str | None
    ledger: LedgerData


Event: TypeAlias = (
    StartEvent
    | PromptEvent
    | TickEvent
    | ForwardEvent
    | AttentionEvent
    | ViewEvent
    | MoveEvent
    | NoteEvent
    | CommandEvent
    | OutsideEvent
    | FaultEvent
    | AnswerEvent
    | EndEvent
)
"""Any event. ``event["event"] == "tick"`` tells a type checker which one it is."""


def note_event(kind: str, data: Mapping[str, Json]) -> NoteEvent:
    """A note of that kind that tells ``data``."""
    return cast("NoteEvent", {"event": "note", "kind": kind, **data})


def note_data(event: NoteEvent) -> dict[str, Json]:
    """What a note tells besides its kind."""
    data = cast("dict[str, Json]", event)
    return {name: value for name, value in data.items() if name not in ("event", "kind")}


_ONE_LINE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # ``dumps`` makes one at each call


def as_json(value: object) -> str:
    """As a trace has it: one line."""
    return _ONE_LINE(value)
