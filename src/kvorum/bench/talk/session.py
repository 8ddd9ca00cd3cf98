"""The comparison: every way of keeping the conversation goes through it in turn, and a table says what each took."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from math import sqrt
from pathlib import Path
from statistics import mean, median

from rich.console import Console
from rich.table import Table

from kvorum.api import Engine
from kvorum.bench.fanout.llama_server import LlamaServer
from kvorum.bench.result import Machine
from kvorum.bench.tables import headline
from kvorum.bench.talk.arms import TOKENS, Pieces, TalkFigures, as_blocks, as_text, play
from kvorum.bench.talk.script import Turn, make_turns
from kvorum.errors import BadRequest
from kvorum.jsontypes import Json, JsonObject
from kvorum.runs.run import Run

TURNS = 40
BLOCKS = "kvorum, blocks"
NOTE = (
    "Tokens and seconds are means of a turn; seconds from the moment that the turn is known to its first token. All "
    "read the same texts: as text in one order, as blocks with what is new behind what was there. New: texts that no "
    "turn before had, and the question. Not in the figures: loading a model, answers of other lengths, other machines "
    "and GPUs, many users at once."
)


def measure(
    engine: Engine, *, server: str, gguf: Path | None, tell: Callable[[str], None], turns: int = TURNS
) -> Sequence[TalkFigures]:
    """All ways, one after the other, on one conversation.

    Raises:
        BadRequest: a llama-server is to be started, and the model has no GGUF file. BenchError: it failed.
    """
    script = make_turns(turns)
    play(engine, "warm", script[:2], as_blocks)  # what is compiled and allocated once is not a turn's
    found = []
    for name, arm in ((BLOCKS, as_blocks), ("kvorum, text at the front", as_text)):
        tell(name)
        found.append(play(engine, name, script, arm))
    if server:
        tell("llama-server, text at the front")
        found.append(_on_server(engine, server, gguf, script))
    return found


def _on_server(engine: Engine, where: str, gguf: Path | None, turns: Sequence[Turn]) -> TalkFigures:
    """Text at the front on a llama-server: the prompt as ids, its own prefix cache on, one slot."""
    if gguf is None:
        raise BadRequest("This model has no GGUF file that a llama-server reads; name one that has.")
    peer = LlamaServer(where, gguf, slots=1, room=8192, threads=os.cpu_count() or 1)

    async def arm(run: Run, turns: Sequence[Turn], figures: TalkFigures) -> None:
        pieces, seen, said = Pieces.of(run), set[str](), list[int]()
        for at, turn in enumerate(turns):
            new, question = pieces.new(turn, not at, seen), pieces.question(turn, not at)
            front = [token for words in pieces.front(turn) for token in pieces.ids(words)]
            first, read, answer = peer.answer([*pieces.opening, *front, *said, *question], TOKENS)
            figures.add(turn, new=new, encoded=read, first=first, answer=answer)
            said += [*question, *run.encode(answer)]

    try:
        return play(engine, "llama-server, text at the front", turns, arm)
    finally:
        peer.close()


def talk_json(found: Sequence[TalkFigures], model: str, machine: Machine, command: Sequence[str]) -> JsonObject:
    """All figures, turn by turn."""
    ways: list[Json] = [{**asdict(figures), "seconds_to_first": mean(figures.first)} for figures in found]
    return {"model": model, "machine": asdict(machine), "command": list(command), "ways": ways}


def show_talk(found: Sequence[TalkFigures], model: str, machine: Machine, console: Console) -> None:
    """Print the table, with ratios to blocks."""
    console.print(headline(model, machine))
    title = f"\n{len(found[0].new)} turns"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", width=17)
    heads = ("new", "encoded", "of new", "first\ntoken s", "median s", "right", "prefill,\ntimes", "first,\ntimes")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    ours = found[0]
    for figures in found:
        low, high = interval(sum(figures.right), len(figures.right))
        table.add_row(
            figures.name,
            f"{mean(figures.new):.0f}",
            f"{mean(figures.encoded):.0f}",
            f"{sum(figures.encoded) / sum(figures.new):.2f}x",
            f"{mean(figures.first):.3f}",
            f"{median(figures.first):.3f}",
            f"{sum(figures.right)} of {len(figures.right)}\n{max(0.0, 100 * low):.0f}-{100 * high:.0f} %",
            "" if figures is ours else f"{sum(figures.encoded) / sum(ours.encoded):.1f}x",
            "" if figures is ours else f"{sum(figures.first) / sum(ours.first):.1f}x",
        )
    console.print(table)
    console.print(NOTE, style="dim")


def interval(right: int, of: int) -> tuple[float, float]:
    """Wilson's interval of a share, at 95 %."""
    z, share = 1.96, right / of
    middle, half = share + z * z / (2 * of), z * sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return (middle - half) / (1 + z * z / of), (middle + half) / (1 + z * z / of)
