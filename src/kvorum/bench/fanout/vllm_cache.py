"""vLLM on the CPU in a comparison of whole jobs: all prompts in one call, the beginning in its prefix cache."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from pathlib import Path

from kvorum.bench.engines.vllm import import_vllm, llm_options
from kvorum.bench.fanout.peer import Prompts, Replies, Wanted, goes_on


class PrefixCached:
    """A `Peer`: float32 weights, in this process."""

    name = "vllm, all at once"

    def __init__(self, folder: Path, *, room: int, threads: int) -> None:
        """``room``: tokens of the longest prompt with what is written behind it."""
        self._vllm = import_vllm(threads)
        self._llm = self._vllm.LLM(**llm_options(folder, room))
        self._ids: list[int] = []

    def keep(self, beginning: Sequence[int]) -> float:
        """See `Peer`."""
        if not goes_on(beginning, self._ids):
            self._llm.reset_prefix_cache()
        self._ids = list(beginning)
        return self._generate([beginning], Wanted(1)).seconds

    def write(self, prompts: Prompts, wanted: Wanted) -> Replies:
        """See `Peer`."""
        return self._generate([[*prompts.beginning, *ending] for ending in prompts.endings], wanted)

    def close(self) -> None:
        """See `Peer`."""

    def _generate(self, prompts: Sequence[Sequence[int]], wanted: Wanted) -> Replies:
        grammar = None
        if wanted.schema is not None:
            structured = importlib.import_module("vllm.sampling_params").StructuredOutputsParams
            grammar = structured(json=dict(wanted.schema))
        params = self._vllm.SamplingParams(
            temperature=0.0,
            max_tokens=wanted.tokens,
            ignore_eos=wanted.full,
            stop=list(wanted.stops) or None,
            structured_outputs=grammar,
        )
        started = time.perf_counter()
        found = self._llm.generate([{"prompt_token_ids": list(ids)} for ids in prompts], params, use_tqdm=False)
        return Replies(time.perf_counter() - started, [output.outputs[0].text for output in found])
