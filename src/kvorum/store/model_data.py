"""What a trace says of the model, its cache and its backend."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class AdapterData(TypedDict):
    """What was merged into the model's weights: its folder, and the sha256 of its two files."""

    folder: str
    sha256: str


class ModelData(TypedDict):
    """What has a part in rounding and counting; ``unused``: what of the model's files is not known.

    Early versions lack ``kv_dtype`` and ``prefill_chunk``; ``backend``, as in "vllm 0.32.0", and the degrees are there
    where it is not the local one."""

    name: str
    dtype: str
    weights: str
    kv_tokens: int
    page_size: int
    kv_dtype: NotRequired[str]
    prefill_chunk: NotRequired[int]
    unused: NotRequired[list[str]]
    adapter: NotRequired[AdapterData]
    backend: NotRequired[str]
    tensor_parallel: NotRequired[int]
    pipeline_parallel: NotRequired[int]
