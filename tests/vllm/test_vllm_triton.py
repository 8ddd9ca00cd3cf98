"""kvorum's Triton kernels inside vLLM's models, in Triton's interpreter: the logits of the reference attention.

A Llama and a Gemma 2 (soft caps, windows, other head sizes than the hidden size says), tiny, one process, float32; and
a Llama in bfloat16, which is what a GPU computes. Not covered: the kernels on a GPU (``test_triton_attention`` compiles
them for some), speed.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from spread_engines import MARKS, in_this_process

import families
import interpreter as interpreter  # makes it quick, and skips this where there is no triton
from kvorum import Engine, Gap, Row, Span, View
from toy_engine import tokenizer

pytestmark = MARKS


def played(engine: Engine) -> list[torch.Tensor]:
    """All logits of two workers that see each other behind a part of a prompt, a gap, and a moved block."""
    ids: list[int] = families.random_ids(40, 5).tolist()
    found: list[torch.Tensor] = []
    p, a, b = (engine.block() for _ in range(3))
    found += engine.forward([Row(View(p), ids=ids[:14])], every=True).every or ()
    views = [View(p, b, a), View(Span(p, 1, 9), Gap(2), a, b)]
    for at in range(14, 26, 4):
        rows = [Row(views[0], ids=ids[at : at + 3]), Row(views[1], ids=ids[at + 3 : at + 4])]
        found += engine.forward(rows, every=True).every or ()
    kept = engine.block()
    engine.compact([Span(b, 1, 3), Span(p, 0, 5)], kept)
    found += engine.forward([Row(View(kept, a, engine.block()), ids=ids[30:34])], every=True).every or ()
    return found


@pytest.mark.parametrize(
    ("family", "dtype", "limit"), [("llama", "float32", 1e-5), ("gemma2", "float32", 2e-5), ("llama", "bfloat16", 4e-2)]
)
def test_triton_inside_vllm_is_the_reference(family: str, dtype: str, limit: float, tmp_path: Path) -> None:
    families.build(family).to(getattr(torch, dtype)).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with in_this_process(tmp_path, dtype=dtype, attention="triton", kv_tokens=256, page_size=4) as there:
        assert " triton " in there.backend.rounding
        ours = played(there)
    model = families.build(family).to(getattr(torch, dtype)).float()  # the same weights
    here = Engine(model, kv_tokens=256, page_size=4, attention="reference")
    for found, wanted in zip(ours, played(here), strict=True):
        far = (found.float() - wanted).abs().max() / wanted.abs().max()
        assert float(far) < limit
