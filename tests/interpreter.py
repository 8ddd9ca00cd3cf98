"""Triton's interpreter made quick enough for tests; see ``conftest.py`` for when the kernels run in it.

It replaces the language's functions at every call of a kernel and of each function in it, which takes most of its time;
here they are replaced once. Importing this skips the test file where triton is not installed.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

if DEVICE == "cpu":
    import triton.language as tl
    from triton.runtime import interpreter

    if hasattr(interpreter, "_patch_lang") and hasattr(interpreter, "_LangPatchScope"):
        interpreter._patch_lang(SimpleNamespace(__globals__={"tl": tl, "core": tl.core}))
        interpreter._patch_lang = lambda _fn: interpreter._LangPatchScope()
