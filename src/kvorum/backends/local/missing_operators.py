"""What torch lacks on a device, said in one sentence: Apple's GPU has not every operator, and no float64."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from kvorum.errors import BadRequest, UnsupportedModel

_OPERATOR = re.compile(r"The operator '([\w:.]+)' is not currently implemented for the (\w+) device")
_DTYPE = re.compile(r"Cannot convert a (\w+) Tensor to (\w+) dtype")


@contextmanager
def named_where_missing() -> Iterator[None]:
    """Raise BadRequest, which names the operator and the way out, where torch has none for the device in use."""
    try:
        yield
    except (NotImplementedError, TypeError, UnsupportedModel) as error:  # the probe says it in words of its own
        words = str(error)
        if found := _OPERATOR.search(words):
            raise BadRequest(
                f"torch has no operator {found[1]} on the device {found[2].lower()}, and this model needs it; "
                "use the CPU (device='cpu')."
            ) from error
        if found := _DTYPE.search(words):
            raise BadRequest(f"The device {found[1].lower()} has no {found[2]}; use the CPU (device='cpu').") from error
        raise
