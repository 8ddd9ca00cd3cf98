"""`kvorum check`: whether a model computes what its file says, and whether it reads plain English as a model does.

A GGUF file is compared with what it was converted to; a Hugging Face folder, through kvorum's attention and weights as
they are held, with transformers' own forward.
"""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from kvorum.cli.arguments import accepts_licence, check_model, is_exact

if TYPE_CHECKING:
    from torch import Tensor

    from kvorum import Engine
    from kvorum.models.load import Loaded
    from kvorum.models.selfcheck import SelfCheck

PERPLEXITY = 300.0
"""At most, on the text that ships: the smallest model of the catalogue has a tenth of it."""


def check(args: Namespace) -> int:
    """Compare a model with its file and read the text that ships, on the CPU. Exit code 1: it fails one of the two."""
    import torch

    from kvorum.backends.local.backend import packs
    from kvorum.engine.text import encode
    from kvorum.models.gguf.file import GGUFFile
    from kvorum.models.gguf.reference import Reference
    from kvorum.models.load import load_model
    from kvorum.models.progress import terminal_progress
    from kvorum.models.selfcheck import TEXT, compare, failure, perplexity

    name = check_model(args.name)
    dtype = "float32" if args.exact else "auto"
    quantize = None if is_exact(args) else args.quantize
    packed = packs(quantize, torch.device("cpu"), dtype)
    accepted = accepts_licence(name)
    with terminal_progress(Path(name).name) as progress:
        options = {"ignore_unknown": args.ignore_unknown, "accept_licence": accepted}
        loaded = load_model(name, packed=packed, progress=progress, **options)
    engine = _engine(loaded, packed)
    ids = encode(engine.tokenizer, TEXT, special=True)
    read = perplexity(_logits(engine, ids), ids)
    found, against, runs = None, "its file", "as it was converted"
    whole = loaded.adapter is None  # no file has what was merged
    if whole and loaded.gguf is None:
        against, runs = "transformers", "as it runs here"
        found = _against_transformers(loaded, packed, ids)
    elif whole and loaded.gguf is not None and Reference.covers(file := GGUFFile(loaded.gguf)):
        found = compare(loaded.model, file, ids)
    problems = [] if found is None or found.passed else [failure(name, found, runs)]
    if not read <= PERPLEXITY:
        problems.append(
            f"{name} reads plain English with a perplexity of {read:.4g}, where {PERPLEXITY:.0f} is the most that a "
            "working model has: its weights are random or damaged."
        )
    if args.json:
        about = None if found is None else found.as_json() | {"passed": found.passed}
        rest = {"perplexity": read, "unused": loaded.unused, "problems": problems}
        print(json.dumps({"name": name, "comparison": about, **rest}))
        return 1 if problems else 0
    none = "none for its architecture" if whole else "none for merged weights"
    print(f"{name}: {'wrong' if problems else 'right'}")
    print(f"  {f'against {against}':22}{found or none}")
    print(f"  {'perplexity':22}{read:.4g} on the text that ships, at most {PERPLEXITY:.0f}")
    if loaded.unused:
        print(f"  {'not known, unused':22}{', '.join(loaded.unused)}")
    for problem in problems:
        print(f"  {problem}")
    return 1 if problems else 0


def _engine(loaded: Loaded, packed: bool) -> Engine:
    from kvorum import Engine

    return Engine(loaded.model, loaded.tokenizer, kv_tokens=1024, weights="packed" if packed else "exact")


def _logits(engine: Engine, ids: list[int]) -> Tensor:
    """kvorum's own logits [tokens, vocabulary] of a text, by its attention and over the weights as they are held."""
    from kvorum import Row, View

    every = engine.forward([Row(View(engine.block()), ids=ids)], every=True).every
    assert every is not None
    return every[0]


def _against_transformers(loaded: Loaded, packed: bool, ids: list[int]) -> SelfCheck:
    import torch

    from kvorum.models.folder import load_folder
    from kvorum.models.selfcheck import beyond, compare_with_transformers, narrower

    plain = load_folder(loaded.source, torch.float32, False, loaded.name)[0].eval() if packed else loaded.model
    with narrower(loaded.model, beyond(loaded.model)):
        logits = _logits(_engine(loaded, packed), ids)
    return compare_with_transformers(loaded.model, logits, plain, torch.tensor(ids))
