"""Writes what a tick needs on an H100, by arithmetic, into docs/performance.md: run it after a change of the kernels.

Nothing is measured, and no GPU is needed. Bytes and operations follow from the model's sizes, how a tick is cut into
programs from the very code that cuts it; registers and shared memory are those that triton's compiler reports for
sm_90. The tables stand between marks; the rest of the page is left alone. Tests compare both, the second one in the
slow lane. Not covered: launches, latencies, and everything else that keeps a GPU from its limits.

    python tools/gpu_on_paper.py               # rewrite both tables; compiling takes a minute
    python tools/gpu_on_paper.py programs      # print the second one
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from kvorum import View
from kvorum.attention.plan import Planner
from kvorum.attention.rotary import Rotary
from kvorum.attention.triton.attention import WORKSPACE, Layer, tiles
from kvorum.attention.triton.tables import Cuts, Tables, power
from kvorum.kv import Block, CacheConfig, CacheShape, KVCache, PagePool

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
MARKS = {
    "ticks": ("<!-- ticks on paper: written by tools/gpu_on_paper.py -->", "<!-- end of ticks on paper -->"),
    "programs": ("<!-- programs on paper: written by tools/gpu_on_paper.py -->", "<!-- end of programs on paper -->"),
}

# qwen3-8b, as in benchmarks/gpu.py
HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, DIM, VOCAB = 4096, 12288, 36, 32, 8, 128, 151936
GROUP = HEADS // KV_HEADS

# NVIDIA's data sheet of the H100 SXM, and its guide to tuning for Hopper
BANDWIDTH, FLOPS = 3.35e12, 989e12
PROCESSORS, REGISTERS, SHARED, THREADS, PROGRAMS = 132, 65536, 227 << 10, 2048, 32
RESERVED = 1 << 10
"""Bytes of shared memory that a resident program takes beside its own."""

TEAMS = ((1, 1), (1, 8), (1, 16), (4, 8))
"""(teams, workers of each); a team has a context of its own."""
CONTEXTS = (1024, 16384)
WRITTEN = 64
"""Tokens that each worker has written, all seen by its team."""
CACHES = {"bfloat16": torch.bfloat16, "int8": torch.int8}


def weights() -> int:
    """Parameters that a tick reads whole: all layers and the output layer; of the embedding it reads a line a row."""
    attention = HIDDEN * DIM * (2 * HEADS + 2 * KV_HEADS)
    return LAYERS * (attention + 3 * HIDDEN * INNER) + VOCAB * HIDDEN


@dataclass(frozen=True)
class Tick:
    """A tick of ``teams`` of ``workers`` each, one token a worker, behind ``context`` tokens of each team's own."""

    teams: int
    workers: int
    context: int
    dtype: torch.dtype

    @property
    def rows(self) -> int:
        """Workers of all teams."""
        return self.teams * self.workers

    @property
    def config(self) -> CacheConfig:
        """One layer of the cache, as large as the tick needs."""
        tokens = self.teams * (self.context + self.workers * (WRITTEN + 16)) + 64
        return CacheConfig((CacheShape(KV_HEADS, DIM, DIM),), tokens, 16, self.dtype)

    @property
    def layer(self) -> Layer:
        """What the kernels know of a layer; there are no numbers behind it."""
        turn = Rotary("half", 0, 1e6 ** (-torch.arange(0, DIM, 2) / DIM))
        return Layer(KVCache(self.config, "meta"), 0, turn, HEADS)

    @cache  # noqa: B019  (a few ticks, all alive to the end)
    def tables(self) -> Tables:
        """The programs of a layer, cut as on a GPU with that many processors."""
        pool, layer = PagePool(self.config), self.layer
        views: list[View] = []
        for _ in range(self.teams):
            shared, *own = (Block(pool) for _ in range(self.workers + 1))
            shared.append([0] * self.context)
            for block in own:
                block.append([0] * (WRITTEN + 1))
            views += [View(shared, *(block for block in own if block is not mine), mine) for mine in own]
        cuts = Cuts(layer.most(2), 4 * PROCESSORS // KV_HEADS, WORKSPACE // (4 * HEADS * DIM))
        (tables,) = cuts.tables(Planner().plan(views, [1] * len(views)))
        return tables

    @property
    def cache_bytes(self) -> int:
        """Of keys and values that the programs read in all layers; each once for all the queries of an item."""
        items = self.tables().columns.items
        return LAYERS * self.config.bytes_per_token * int((items[:, 6] - items[:, 5]).sum())

    @property
    def partial_bytes(self) -> int:
        """Of partial results, written once and read once, in all layers."""
        return 2 * LAYERS * self.tables().sizes.parts * HEADS * (DIM + 1) * 4

    @property
    def operations(self) -> int:
        """Multiplications and additions of weights and of attention, without padding."""
        items = self.tables().columns.items
        scores = int((items[:, 1] * (items[:, 6] - items[:, 5])).sum())
        return 2 * weights() * self.rows + LAYERS * 4 * HEADS * DIM * scores


def ticks() -> Iterator[tuple[str, Tick]]:
    """All that are in the tables, with the cache's name."""
    for name, dtype in CACHES.items():
        for context in CONTEXTS:
            for teams, workers in TEAMS:
                yield name, Tick(teams, workers, context, dtype)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _team(tick: Tick) -> str:
    return f"{tick.teams} teams of {tick.workers}" if tick.teams > 1 else str(tick.workers)


def tick_table() -> str:
    """A line for each tick: what it reads and computes, and the least time for both."""
    heads = ["cache", "workers", "behind", "weights, GB", "cache, GB", "partial results, GB", "TFLOP", "memory, ms"]
    heads += ["arithmetic, ms", "bound", "tokens/s at the bound"]
    lines = [_line(heads), "|---" * len(heads) + "|"]
    for name, tick in ticks():
        read = 2 * weights() + tick.cache_bytes
        memory, arithmetic = read / BANDWIDTH, tick.operations / FLOPS
        bound = max(memory, arithmetic)
        cells = [
            name,
            _team(tick),
            f"{tick.context:,}",
            f"{2 * weights() / 1e9:.2f}",
            f"{tick.cache_bytes / 1e9:.2f}",
            f"{tick.partial_bytes / 1e9:.2f}",
            f"{tick.operations / 1e12:.3f}",
            f"{1e3 * memory:.2f}",
            f"{1e3 * arithmetic:.2f}",
            "memory" if memory > arithmetic else "arithmetic",
            f"{tick.rows / bound:,.0f}",
        ]
        lines.append(_line(cells))
    return "\n".join(lines)


# -- the kernels ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compiled:
    """What a program of a kernel takes: registers of a thread, bytes of its stack, where what spills goes, bytes of
    shared memory, warps."""

    registers: int
    stack: int
    shared: int
    warps: int

    @property
    def resident(self) -> int:
        """Programs that a processor holds at once; registers are handed out to warps in steps of 256."""
        by_registers = REGISTERS // (-(-self.registers // 8) * 8 * 32 * self.warps)
        return min(by_registers, SHARED // (self.shared + RESERVED), THREADS // (32 * self.warps), PROGRAMS)


@cache
def compiled(kernel: str, warps: int, **constants: int) -> Compiled:
    """By triton's compiler, for sm_90, of bfloat16 queries; pointers and sizes divide by 16, as they do in a run."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from kvorum.attention.triton import kernels

    function = getattr(kernels, kernel)
    half, whole, wide = "*bf16", "*i32", "*fp32"
    held = "*i8" if constants.get("INT8") else half
    kinds = dict.fromkeys(("query", "new_keys", "new_values", "out", "sinks"), half)
    kinds |= dict.fromkeys(("items", "queries", "deltas", "gathered", "slots", "ends", "parts"), whole)
    kinds |= dict.fromkeys(("cos", "sin", "partial", "lse"), wide) | {"keys": held, "values": held}
    kinds |= dict.fromkeys(("key_scales", "value_scales"), wide if held == "*i8" else half)
    kinds |= dict.fromkeys(("scale", "softcap"), "fp32")
    signature = {name: "constexpr" if name in constants else kinds.get(name, "i32") for name in function.arg_names}
    loose = ("tokens", "delta_line", "shift_line", "window", "scale", "softcap")
    divides = {
        (at,): [["tt.divisibility", 16]]
        for at, name in enumerate(function.arg_names)
        if name not in constants and name not in loose
    }
    source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=divides)
    options: dict[str, Any] = {"num_warps": warps, "num_stages": 2}
    if kernel == "store":
        options["enable_fp_fusion"] = False
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        words = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    registers, stack = (int(found[1]) for name in ("REG", "STACK") if (found := re.search(rf"{name}:(\d+)", told)))
    return Compiled(registers, stack, made.metadata.shared, warps)


def _heads(tick: Tick) -> dict[str, int]:
    return dict(tick.layer.constants)


def programs() -> Iterator[tuple[str, Tick, int, str, Compiled]]:
    """(kernel, tick, programs of a layer, the tile of one, what one takes) of one team of each size."""
    for name, tick in ticks():
        if tick.teams > 1:
            continue
        tables, layer = tick.tables(), tick.layer
        sizes = tiles(tables.width * GROUP, layer.block_k, layer.block_v, 2)
        warps = sizes.pop("num_warps")
        found = compiled("attend", warps, GROUP=GROUP, CAPPED=False, TURNED=False, **_heads(tick), **sizes)
        tile = f"{sizes['BLOCK_M']} queries, {sizes['BLOCK_N']} keys"
        yield f"attend, {name}", tick, tables.sizes.items * KV_HEADS, tile, found
        if tick.context == CONTEXTS[0]:
            found = compiled("store", 4, BLOCK_T=16, **_heads(tick))
            yield f"store, {name}", tick, -(-tick.rows // 16) * KV_HEADS, "16 tokens", found
        if name == "bfloat16":
            heads = min(8, power(HEADS), power(-(-tick.rows * HEADS // (4 * PROCESSORS))))
            sizes = {"BLOCK_P": 16 // heads, "BLOCK_H": heads, "BLOCK_V": DIM}
            found = compiled("merge", 4, V_DIM=DIM, SINKS=False, **sizes)
            yield "merge", tick, tick.rows * -(-HEADS // heads), f"{heads} heads, {16 // heads} results", found


def program_table() -> str:
    """A line for each kernel and tick: what a program takes, how many there are, and how many processors they reach."""
    heads = ["kernel", "workers", "behind", "tile", "warps", "registers", "stack, bytes", "shared, KiB"]
    heads += ["at once on an SM", "programs", "SMs at work", "share of the places"]
    lines = [_line(heads), "|---" * len(heads) + "|"]
    for kernel, tick, count, tile, one in sorted(programs(), key=lambda found: (found[0], found[1].context)):
        cells = [
            kernel,
            str(tick.workers),
            f"{tick.context:,}" if not kernel.startswith("store") else "any",
            tile,
            str(one.warps),
            str(one.registers),
            str(one.stack),
            f"{one.shared / 1024:.1f}",
            str(one.resident),
            f"{count:,}",
            str(min(count, PROCESSORS)),
            f"{100 * count / (PROCESSORS * one.resident):.0f}%",
        ]
        lines.append(_line(cells))
    return "\n".join(lines)


def written(page: str, **tables: str) -> str:
    """The page with these tables between their marks."""
    for name, table in tables.items():
        begin, end = MARKS[name]
        before, rest = page.split(begin)
        page = f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}"
    return page


if __name__ == "__main__":
    os.environ.pop("TRITON_INTERPRET", None)  # read when the kernels are imported, which is not yet
    if sys.argv[1:] == ["programs"]:
        print(program_table())
    else:
        text = written(PAGE.read_text(encoding="utf-8"), ticks=tick_table(), programs=program_table())
        PAGE.write_text(text, encoding="utf-8")
