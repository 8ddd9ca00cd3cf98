"""The calls of the compiled module, as ``cpp/module.cpp`` exports them.

An argument whose name ends in ``_ptr`` is the address of contiguous memory that the caller keeps alive; 0 stands for
none where the comment says so. Nothing is checked on the other side: a wrong size reads beyond the end. ``threads`` is
the most threads that a call may take from torch's pool. Groups are of 32 inputs.
"""

from collections.abc import Sequence

ABI: int
"""Counted up whenever a call changes."""

def paths() -> list[str]:
    """Instruction sets that this processor has kernels for, fastest first: "avx512vnni", "avx2", "scalar"; on ARM
    "neon-i8mm", "neon-dotprod", "neon", "scalar"."""

def path() -> str:
    """The instruction set in use."""

def use(name: str, /) -> None:
    """Take the kernels of one of ``paths()``, for the whole process. Raises ValueError: the processor lacks it."""

def have_threads() -> bool:
    """Whether torch's OpenMP threads were found; without them each call runs on the thread that makes it."""

def quantize(x_ptr: int, rows: int, features: int, codes_ptr: int, scales_ptr: int, threads: int, /) -> None:
    """Quantise float32 ``x [rows, features]`` to int8 ``codes [groups, rows, 32]`` and float32 ``scales [.., 2]``."""

def rms_quantize(
    x_ptr: int, weight_ptr: int, eps: float, rows: int, features: int, codes_ptr: int, scales_ptr: int, threads: int, /
) -> None:
    """Quantise ``weight * x / sqrt(mean(x ** 2) + eps)``."""

def silu_mul_quantize(
    gate_up_ptr: int, rows: int, features: int, codes_ptr: int, scales_ptr: int, threads: int, /
) -> None:
    """Quantise ``silu(gate) * up`` of float32 ``gate_up [rows, 2 * features]``, gates first."""

def uniform(seed: int, stream: int, step: int, /) -> float:
    """The point in [0, 1) at which a row with these three numbers draws."""

class Matrix:
    """Packed matrices with the same inputs, one under the other; see ``native/README.md`` for the layout."""

    def __init__(self, features: int, /) -> None: ...
    def add(self, bits: int, data_ptr: int, rows: int, mult_ptr: int, bias_ptr: int, /) -> None:
        """Put ``rows`` more rows below; ``mult`` float32 ``[rows]``, ``bias`` likewise or 0."""

    def forward(
        self, codes_ptr: int, scales_ptr: int, rows: int, out_ptr: int, out_stride: int, add: bool, threads: int, /
    ) -> None:
        """Write the product to float32 ``out``, whose rows lie ``out_stride`` floats apart, or add it there."""

class AttentionLayer:
    """What the kernels need to know of one layer's cache ``[kv_heads, slots, dim]`` and of its attention."""

    def __init__(
        self,
        keys_ptr: int,
        values_ptr: int,
        narrow: bool,  # float16, else float32
        slots: int,
        q_heads: int,
        kv_heads: int,
        k_dim: int,
        v_dim: int,
        style: int,  # of the rotation: 0 none, 1 half, 2 interleaved
        start: int,
        half: int,
        window: int,  # 0: none
        softcap: float,  # 0: none
        scale: float,
        sinks_ptr: int,  # 0: none
        /,
    ) -> None: ...
    def hold_int8(self) -> None:
        """From now on the cache is int8 ``[kv_heads, slots, bytes]``, rows as in ``kvorum/kv/int8_rows.py``."""

class Rotation:
    """Cosines and sines, float32 ``[positions, half]``, of queries, new keys and the shifts of joined runs."""

    def __init__(
        self,
        query_cos_ptr: int,
        query_sin_ptr: int,
        new_cos_ptr: int,
        new_sin_ptr: int,
        shift_cos_ptr: int,
        shift_sin_ptr: int,
        shift_row_ptr: int,  # int64: each joined key's row of the two tables before
        /,
    ) -> None: ...

class AttentionPlan:
    """The segments of one tick."""

    def __init__(
        self,
        table_ptr: int,  # int64 [segments, 7]
        segments: int,
        query_tokens_ptr: int,
        deltas_ptr: int,
        slots_ptr: int,
        tokens: int,
        /,
    ) -> None: ...
    def watch(self, group_ptr: int, groups: int, line_ptr: int, lines: int, out_ptr: int, /) -> None:
        """Measure how much of the attention of some tokens goes to each group of keys."""

    def aim(self, out_ptr: int, /) -> None:
        """Where the next layer's measured shares are written."""

    def attend(
        self,
        layer: AttentionLayer,
        turns: Rotation,
        query_ptr: int,
        query_stride: int,
        keys_ptr: int,
        keys_stride: int,
        values_ptr: int,
        values_stride: int,
        out_ptr: int,
        threads: int,
        /,
    ) -> None:
        """Write new keys and values to the cache, then attend; strides are floats from one token to the next."""

class Decoder:
    """All layers of a Llama-shaped model over packed weights."""

    def __init__(self, q_heads: int, kv_heads: int, dim: int, eps: float, norm_ptr: int, head: Matrix, /) -> None: ...
    @property
    def q_heads(self) -> int: ...
    def add(
        self,
        norm_ptr: int,
        qkv: Matrix,
        q_norm_ptr: int,  # 0: none
        k_norm_ptr: int,  # 0: none
        out: Matrix,
        mlp_norm_ptr: int,
        gate_up: Matrix,
        down: Matrix,
        /,
    ) -> None:
        """Put one more layer on top."""

    def forward(
        self,
        plan: AttentionPlan,
        attention: Sequence[AttentionLayer],
        turns: Sequence[Rotation],
        x_ptr: int,
        index_ptr: int,
        count: int,
        logits_ptr: int,
        hidden_ptr: int,  # 0: not wanted
        threads: int,
        /,
    ) -> None:
        """One tick from embeddings ``x [tokens, hidden]`` to the logits of the ``count`` tokens at ``index``."""

class Draws:
    """The draws of one tick from logits of ``vocab`` floats each."""

    def __init__(self, vocab: int, /) -> None: ...
    def add(
        self,
        logits_ptr: int,
        allowed_ptr: int,  # bool [vocab], or 0
        banned_ptr: int,  # int64 [bans], or 0
        bans: int,
        temperature: float,
        top_p: float,
        min_p: float,
        top_k: int,
        seed: int,
        stream: int,
        step: int,
        telling: bool,  # whether the logprob is wanted
        /,
    ) -> None:
        """Ask for one more draw."""

    def run(self, threads: int, /) -> list[tuple[int, float]]:
        """Token and logprob of each draw in order; the token is negative where none was left."""
