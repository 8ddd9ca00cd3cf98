"""What speculation gains: one worker with and without it, in turns, where answers repeat their prompts or do not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from rich.console import Console
from rich.table import Table

from kvorum.api import Engine
from kvorum.bench.result import Machine
from kvorum.engine.budget import Ledger
from kvorum.engine.text import chat
from kvorum.errors import BadRequest, BenchError
from kvorum.jsontypes import Json, JsonObject
from kvorum.kv import View
from kvorum.sampling.sampling import Sampling
from kvorum.tasks.reports import report

TOKENS = 160
"""How many tokens each answer has; they go on behind the end of the text where the model would have ended it."""
_CODE = '''def total(prices, rate):
    """The sum of all prices with tax."""
    result = 0
    for price in prices:
        result = result + price * (1 + rate)
    return result


def cheapest(prices):
    """The lowest of all prices."""
    lowest = prices[0]
    for price in prices:
        if price < lowest:
            lowest = price
    return lowest


def average(prices):
    """The mean of all prices."""
    result = 0
    for price in prices:
        result = result + price
    return result / len(prices)
'''
NOTE = (
    "Seconds a token from the first to the last of an answer, medians over rounds; the tokens are the same with and "
    "without, which is checked. Drafted: tokens that were computed ahead; came: those of them that the model wrote."
)


@dataclass(frozen=True, slots=True)
class Gain:
    """One kind of prompt at one temperature: seconds a token ``with_it`` and ``without``, and what was supposed."""

    kind: str
    temperature: float
    with_it: float
    without: float
    tokens: int
    drafted: int
    accepted: int

    @property
    def ratio(self) -> float:
        """How many times as fast with speculation."""
        return self.without / self.with_it


def prompts() -> dict[str, str]:
    """The kinds of prompts: extraction and the editing of code repeat what is there, free text does not."""
    places = report(3, 6).text
    return {
        "extraction": f"{places}\n\nCopy every sentence of the text that holds a number, word for word, a line each.",
        "code editing": f"```python\n{_CODE}```\n\nRename the variable `price` to `cost`. Give the whole file.",
        "free text": "Write a short story about a lighthouse keeper who finds a letter in a bottle.",
    }


def measure(engine: Engine, rounds: int, tell: Callable[[str], None]) -> list[Gain]:
    """All kinds at temperatures 0 and 0.7, with and without in turns.

    Raises:
        BadRequest: there is no speculation on this engine. BenchError: a token was another one with it.
    """
    speculation = engine.executor.speculation
    if speculation is None:
        raise engine.backend.lacks_speculation() or BadRequest("This engine was loaded without speculation.")
    found = []
    _write(engine, "Say hello.", 0.0)  # what is allocated once is no answer's
    for kind, words in prompts().items():
        for temperature in (0.0, 0.7):
            tell(f"{kind}, temperature {temperature}")
            seconds: dict[bool, list[float]] = {True: [], False: []}
            ids: dict[bool, list[int]] = {}
            ledger = Ledger()
            for number in range(rounds):
                for on in (True, False) if number % 2 else (False, True):
                    engine.executor.speculation = speculation if on else None
                    try:
                        ids[on], took, spent = _write(engine, words, temperature)
                    finally:
                        engine.executor.speculation = speculation
                    seconds[on].append(took / (len(ids[on]) - 1))
                    ledger = spent if on else ledger
            if ids[True] != ids[False]:
                raise BenchError(f"{kind}: the tokens with speculation are others than those without")
            times = median(seconds[True]), median(seconds[False])
            found.append(Gain(kind, temperature, *times, len(ids[True]), ledger.drafted, ledger.accepted))
    return found


def _write(engine: Engine, words: str, temperature: float) -> tuple[list[int], float, Ledger]:
    """An answer's ids, the seconds from its first token to its last, and what it took."""
    ids = chat(engine.tokenizer, [{"role": "user", "content": words}])
    sampling = Sampling(temperature, seed=1, banned=tuple(engine.ends))
    ledger = Ledger()

    async def run() -> tuple[list[int], float]:
        found: list[int] = []
        first = 0.0
        view = View(engine.block())
        async for token in engine.decode(
            view, ids=ids, sampling=sampling, max_tokens=TOKENS, ledger=ledger, keep=False, logprobs=False
        ):
            first = first or time.perf_counter()
            found.append(token.id)
        return found, time.perf_counter() - first

    return *asyncio.run(run()), ledger


def gains_json(found: Sequence[Gain], model: str, machine: Machine, command: Sequence[str]) -> JsonObject:
    """All figures."""
    kinds: list[Json] = [{**asdict(gain), "ratio": gain.ratio} for gain in found]
    return {"model": model, "machine": asdict(machine), "command": list(command), "kinds": kinds}


def show_gains(found: Sequence[Gain], model: str, machine: Machine, console: Console) -> None:
    """Print the table."""
    console.print(f"{model} on {machine.processor}: {machine.threads} threads, {machine.capability}, {machine.date}")
    table = Table(title=f"\nSpeculation, one worker, {TOKENS} tokens", title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for head in ("temperature", "ms without", "ms with", "times as fast", "drafted", "came"):
        table.add_column(head, justify="right", no_wrap=True)
    for gain in found:
        row = (f"{gain.temperature:g}", f"{1000 * gain.without:.1f}", f"{1000 * gain.with_it:.1f}", f"{gain.ratio:.2f}")
        table.add_row(gain.kind, *row, str(gain.drafted), str(gain.accepted))
    console.print(table)
    console.print(NOTE, style="dim")
