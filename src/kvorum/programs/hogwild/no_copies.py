"""What keeps a team from writing one thing several times: what another wrote is not written again, word for word.

Small models copy what they see others write. Two rules work against it, and both look only at what is written: a token
that would end an n-gram which stands in another's text is not picked (no_repeat_ngram_size of transformers, between
workers instead of within one), and of workers that stand at the same words, such as the beginning of an item, one
writes at a time, so that each sees how the others went on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from kvorum.runs.worker import Worker


class NoCopies:
    """The n-grams of each worker's picked tokens; ``size`` is their n, at least 2.

    ``words`` has the ids of tokens with a letter or a digit. Others are free: marks, blanks and line ends are what a
    text is laid out with.
    """

    def __init__(self, size: int, words: Container[int]) -> None:
        self.size, self.words = size, words
        self.writers: dict[tuple[int, ...], dict[int, set[str]]] = defaultdict(dict)
        """By the first tokens of an n-gram: who wrote it, for each token that ended it."""

    def _note(self, worker: Worker) -> None:
        """Take in the token that a worker wrote last."""
        if len(worker.ids) < self.size:
            return
        *before, last = worker.ids[-self.size :]
        if last in self.words:
            self.writers[tuple(before)].setdefault(last, set()).add(worker.name)

    def banned(self, worker: Worker) -> list[int]:
        """The tokens that others wrote behind what the worker has written last, in the order of their ids."""
        others = self.writers.get(self._end(worker), {})
        return sorted(token for token, names in others.items() if names - {worker.name})

    def turns(self, workers: Sequence[Worker]) -> list[Worker]:
        """Those who write now: of several that stand at the same words the one who has written least, then the first.

        Somebody always does; who waits has its turn when the others have gone on.
        """
        first: dict[tuple[int, ...], Worker] = {}
        for worker in sorted(workers, key=lambda one: len(one.ids)):
            end = self._end(worker)
            first.setdefault(end if len(end) == self.size - 1 else (-1, worker.index), worker)
        chosen = {worker.name for worker in first.values()}
        return [worker for worker in workers if worker.name in chosen]

    @contextmanager
    def writing(self, workers: Sequence[Worker]) -> Iterator[list[Worker]]:
        """Those who write in this tick, who do not pick what is banned in it; behind it, what they wrote is known."""
        now = self.turns(workers)
        before = [worker.sampling for worker in now]
        for worker in now:
            if banned := self.banned(worker):
                worker.sampling = replace(worker.sampling, banned=(*worker.sampling.banned, *banned))
        try:
            yield now
            for worker in now:
                self._note(worker)
        finally:
            for worker, sampling in zip(now, before, strict=True):
                worker.sampling = sampling

    def _end(self, worker: Worker) -> tuple[int, ...]:
        return tuple(worker.ids[1 - self.size :])
