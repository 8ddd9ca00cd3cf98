"""What speculation gains: workers with and without it, in turns, where answers repeat their prompts or do not.

One worker; then several streams that share ticks, each at its own pace, as chats of a server are; then as many workers
of one run of ``vote``, who wait for each other, as the rows of all programs do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import median
from typing import NamedTuple

from kvorum.api import Engine
from kvorum.engine.budget import Budget, Ledger
from kvorum.engine.text import chat
from kvorum.errors import BadRequest, BenchError
from kvorum.kv import View
from kvorum.programs import find
from kvorum.sampling.sampling import Sampling
from kvorum.tasks.reports import report
from kvorum.wording import plural

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


@dataclass(frozen=True, slots=True)
class Gain:
    """One kind of prompt at one temperature: seconds a token ``with_it`` and ``without``, and what was supposed.

    ``rows``: how many share the ticks; ``in_step``: whether they wait for each other.
    """

    kind: str
    temperature: float
    rows: int
    in_step: bool
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


def measure(engine: Engine, rounds: int, tell: Callable[[str], None], rows: Sequence[int] = (1,)) -> list[Gain]:
    """All kinds, with and without in turns: one row at temperatures 0 and 0.7, ``rows`` above 1 at 0.7, in both ways.

    Raises:
        BadRequest: there is no speculation on this engine. BenchError: a token was another one with it.
    """
    speculation = engine.executor.speculation
    if speculation is None:
        raise engine.backend.lacks_speculation() or BadRequest("This engine was loaded without speculation.")
    _one(engine, "Say hello.", 0.0)  # what is allocated once is no answer's
    found = []
    for case in _cases(rows):
        tell(str(case))
        seconds: dict[bool, list[float]] = {True: [], False: []}
        written: dict[bool, _Written] = {}
        for number in range(rounds):
            for on in (True, False) if number % 2 else (False, True):
                engine.executor.speculation = speculation if on else None
                try:
                    written[on] = _write(engine, case)
                finally:
                    engine.executor.speculation = speculation
                seconds[on].append(written[on].seconds)
        if written[True].ids != written[False].ids:
            raise BenchError(f"{case.kind}: the tokens with speculation are others than those without")
        times = median(seconds[True]), median(seconds[False])
        spent, tokens = written[True].ledger, sum(map(len, written[True].ids))
        where = (case.kind, case.temperature, case.rows, case.in_step)
        found.append(Gain(*where, *times, tokens, spent.drafted, spent.accepted))
    return found


class _Case(NamedTuple):
    """One prompt, and how it is answered."""

    kind: str
    words: str
    temperature: float
    rows: int
    in_step: bool

    def __str__(self) -> str:
        pace = ", in step" * self.in_step
        return f"{self.kind}, temperature {self.temperature}, {plural(self.rows, 'row')}{pace}"


def _cases(rows: Sequence[int]) -> Iterator[_Case]:
    for count in rows:
        paces, temperatures = ((False, True), (0.7,)) if count > 1 else ((False,), (0.0, 0.7))
        for in_step, (kind, words), temperature in product(paces, prompts().items(), temperatures):
            yield _Case(kind, words, temperature, count, in_step)


class _Written(NamedTuple):
    """The ids of each row, seconds a token of one row, and what it took."""

    ids: list[list[int]]
    seconds: float
    ledger: Ledger


def _write(engine: Engine, case: _Case) -> _Written:
    if case.rows == 1:
        return _one(engine, case.words, case.temperature)
    ticks: list[float] = []

    def note(count: int, tokens: int, seconds: float) -> None:
        if tokens == count:  # no prompt was read
            ticks.append(seconds)

    before, engine.scheduler.listener = engine.scheduler.listener, note
    try:
        ids, ledger = (_vote if case.in_step else _chats)(engine, case.words, case.temperature, case.rows)
    finally:
        engine.scheduler.listener = before
    return _Written(ids, sum(ticks) / (sum(map(len, ids)) / case.rows), ledger)


def _vote(engine: Engine, words: str, temperature: float, rows: int) -> tuple[list[list[int]], Ledger]:
    sampling = Sampling(temperature, seed=1, banned=tuple(engine.ends))
    budget = Budget(ticks=TOKENS)
    done = engine.run(find("vote"), words, workers=rows, sampling=sampling, budget=budget, answer="text")
    return [worker.ids for worker in done.workers], done.ledger


def _chats(engine: Engine, words: str, temperature: float, rows: int) -> tuple[list[list[int]], Ledger]:
    ledger = Ledger()

    async def every() -> list[list[int]]:
        asked = (_answer(engine, words, temperature, stream, ledger) for stream in range(rows))
        return [ids for ids, _ in await asyncio.gather(*asked)]

    return asyncio.run(every()), ledger


def _one(engine: Engine, words: str, temperature: float) -> _Written:
    ledger = Ledger()
    ids, seconds = asyncio.run(_answer(engine, words, temperature, 0, ledger))
    return _Written([ids], seconds / (len(ids) - 1), ledger)


async def _answer(
    engine: Engine, words: str, temperature: float, stream: int, ledger: Ledger
) -> tuple[list[int], float]:
    """An answer's ids, and the seconds from its first token to its last."""
    ids = chat(engine.tokenizer, [{"role": "user", "content": words}])
    sampling = Sampling(temperature, seed=1, banned=tuple(engine.ends))
    found: list[int] = []
    first = 0.0
    async for token in engine.decode(
        View(engine.block()),
        ids=ids,
        sampling=sampling,
        max_tokens=TOKENS,
        stream=stream,
        ledger=ledger,
        keep=False,
        logprobs=False,
    ):
        first = first or time.perf_counter()
        found.append(token.id)
    return found, time.perf_counter() - first
