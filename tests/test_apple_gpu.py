"""`device="mps"`, Apple's GPU, as far as that can be tested without one.

What torch lacks there is said in a sentence, and nothing on a device is brought to float64, which it has not. Torch's
refusals are raised by a mode that stands between it and its operators. Not covered: that the others are right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import families
import kvorum
from kvorum import Engine, Row, View
from kvorum.backends.local.backend import cache_dtype
from kvorum.errors import BadRequest
from kvorum.models.load import model_dtype


class Lacking(TorchDispatchMode):
    """Refuses an operator with the words of torch for Apple's GPU."""

    def __init__(self, operator: str, refusal: Exception) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operator, self.refusal = operator, refusal

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        if func.name() == self.operator:
            raise self.refusal
        call: Callable[..., object] = func
        return call(*args, **(kwargs or {}))


def mps_lacks(operator: str) -> Lacking:
    words = f"The operator '{operator}' is not currently implemented for the MPS device. If you want this op to be "
    return Lacking(operator, NotImplementedError(words + "considered for addition please comment on ..."))


def test_a_missing_operator_is_named_and_the_cpu_is_the_way_out() -> None:
    engine = Engine(families.build("llama", dtype=torch.float32), kv_tokens=64, attention="reference")
    rows = [Row(View(engine.block()), ids=[1, 2, 3])]
    with mps_lacks("aten::logsumexp"), pytest.raises(BadRequest, match=r"no operator aten::logsumexp on .*mps.*cpu"):
        engine.forward(rows)


def test_one_that_the_model_needs_when_it_is_looked_at_is_named_too() -> None:
    model = families.build("llama", dtype=torch.float32)
    with mps_lacks("aten::rsqrt"), pytest.raises(BadRequest, match=r"aten::rsqrt.*device='cpu'"):
        Engine(model, kv_tokens=64)


def test_a_dtype_that_the_device_has_not_is_named() -> None:
    words = "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
    model = families.build("llama", dtype=torch.float32)
    with Lacking("aten::rsqrt", TypeError(words)), pytest.raises(BadRequest, match=r"mps has no float64.*device='cpu'"):
        Engine(model, kv_tokens=64)


def test_other_errors_stay_what_they_are() -> None:
    model = families.build("llama", dtype=torch.float32)
    with Lacking("aten::rsqrt", ValueError("something else")), pytest.raises(ValueError, match="something else"):
        Engine(model, kv_tokens=64)


def test_nothing_on_a_device_is_brought_to_float64() -> None:
    source = Path(kvorum.__file__).parent
    for file in source.rglob("*.py"):
        if file.parts[-2:] in (
            ("backends", "fake.py"),
            ("engine", "rereading.py"),
        ):  # on the CPU alone
            continue
        text = file.read_text(encoding="utf-8")
        here = [at.start() for at in re.finditer(r"\.double\(\)|\.to\([^()]*float64", text)]
        there = [at.end() for at in re.finditer(r"\.cpu\(\)(?=\.double\(\))", text)]
        assert here == there, file


def test_a_model_is_in_float32_there() -> None:
    assert model_dtype("auto", torch.device("mps")) == torch.float32


def test_a_cache_in_int8_is_refused_by_name() -> None:
    with pytest.raises(BadRequest, match="int8 needs a CPU or a CUDA GPU, and the model is on mps"):
        cache_dtype("int8", torch.float32, torch.device("mps"))
    assert cache_dtype("int8", torch.bfloat16, torch.device("cuda")) == torch.int8


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="here it is")
def test_where_there_is_none_that_is_said() -> None:
    with pytest.raises(BadRequest, match="no device 'mps' here"):
        Engine.load("smollm2-135m", device="mps")
