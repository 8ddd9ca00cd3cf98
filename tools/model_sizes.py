"""Writes the table of model sizes against devices into docs/scaling.md: run it after a change.

Arithmetic on what the models' configurations say; nothing is loaded or measured. The table stands between two marks;
the rest of the page is left alone. A test compares both. Not covered: what vLLM and torch themselves take, beyond a
share of each device that is kept for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "scaling.md"
BEGIN, END = "<!-- sizes: written by tools/model_sizes.py -->", "<!-- end of sizes -->"
LEAST = 8_000
"""Tokens of cache below which a model does not count as one that fits."""
KEY_BYTES = 2
"""Of a number in the cache: bfloat16, on a CPU float16."""
FORMS: Mapping[str, float] = {
    "bf16": 16,
    "8 bits": 8 + 16 / 128,
    "4 bits": 4 + (16 + 4) / 128,
}
"""Bits of a weight in a quantised checkpoint: a scale for each 128, with 4 bits a zero of 4 bits, too."""
PACKED: Mapping[str, float] = {"float32": 32, "7 bits": 8 + 32 / 32, "4 bits": 4 + 32 / 32}
"""Bits of a weight on a CPU: in 7 bits a byte each, a scale and a lowest value of 16 bits for each 32."""


@dataclass(frozen=True)
class Model:
    """A model's sizes. ``parameters``: in billions; ``outer``: those of them in embeddings and output layer."""

    name: str
    parameters: float
    outer: float
    layers: int
    kv_heads: int
    head: int

    def weights(self, bits: float, outer_bits: float) -> float:
        """Gigabytes."""
        return ((self.parameters - self.outer) * bits + self.outer * outer_bits) / 8

    @property
    def token(self) -> int:
        """Bytes of a token's keys and values in all layers."""
        return 2 * self.layers * self.kv_heads * self.head * KEY_BYTES


@dataclass(frozen=True)
class Device:
    """What there is of memory, in gigabytes. ``left``: what others need of it; ``cpu``: weights are packed."""

    name: str
    size: float
    left: float
    cpu: bool = False

    def fits(self, model: Model) -> str:
        """The most exact form of a model that leaves room for LEAST tokens, and how many it leaves room for."""
        for form, bits in (PACKED if self.cpu else FORMS).items():
            room = self.size - self.left - model.weights(bits, bits if self.cpu else 16)
            tokens = int(room * 1e9 / model.token)
            if tokens >= LEAST:
                return f"{form}: {_rounded(tokens)}"
        return "no"


MODELS = (
    Model("Qwen2.5 0.5B", 0.494, 0.136, 24, 2, 64),
    Model("Qwen2.5 1.5B", 1.544, 0.233, 28, 2, 128),
    Model("Qwen2.5 7B", 7.616, 1.090, 28, 4, 128),
    Model("Qwen2.5 32B", 32.764, 1.557, 64, 8, 128),
    Model("Llama 3.3 70B", 70.554, 2.101, 80, 8, 128),
    Model("Qwen3 235B-A22B", 235.094, 1.245, 94, 4, 128),
)
DEVICES = (
    Device("laptop, 16 GB", 16, 6, cpu=True),
    Device("GPU, 24 GB", 24, 2.4),
    Device("48 GB", 48, 4.8),
    Device("80 GB", 80, 8),
    Device("141 GB", 141, 14.1),
    Device("8 × 80 GB", 640, 64),
)


def _rounded(tokens: int) -> str:
    """Two figures, rounded down: "21 k", "1.3 M"."""
    if tokens >= 10_000_000:
        return f"{tokens // 1_000_000} M"
    return f"{tokens // 100_000 / 10} M" if tokens >= 1_000_000 else f"{tokens // 1000} k"


def table() -> str:
    """A row for each model."""
    heads = ["model", "bf16 / 8 / 4 bits", "a token", *(device.name for device in DEVICES)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for model in MODELS:
        weights = " / ".join(f"{model.weights(bits, 16):.1f}" for bits in FORMS.values())
        cells = [model.name, f"{weights} GB", f"{model.token / 1000:.0f} kB", *(one.fits(model) for one in DEVICES)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def written(page: str) -> str:
    """The page with today's table between its marks."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
