"""`kvorum check`: whether a model computes what its file says, and whether it reads plain English as a model does."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from kvorum.cli.arguments import check_model

PERPLEXITY = 300.0
"""At most, on the text that ships: the smallest model of the catalogue has a tenth of it."""


def check(args: Namespace) -> int:
    """Compare a model with its file and read the text that ships, on the CPU. Exit code 1: it fails one of the two."""
    import torch

    from kvorum import Engine, Row, View
    from kvorum.backends.local.backend import packs
    from kvorum.engine.text import encode
    from kvorum.models.gguf.file import GGUFFile
    from kvorum.models.gguf.reference import Reference
    from kvorum.models.load import load_model
    from kvorum.models.progress import terminal_progress
    from kvorum.models.selfcheck import TEXT, compare, failure, perplexity

    name = check_model(args.name)
    dtype = "float32" if args.exact else "auto"
    quantize = None if args.exact or args.quantize == "none" else args.quantize
    packed = packs(quantize, torch.device("cpu"), dtype)
    with terminal_progress(Path(name).name) as progress:
        loaded = load_model(name, packed=packed, ignore_unknown=args.ignore_unknown, progress=progress)
    engine = Engine(loaded.model, loaded.tokenizer, kv_tokens=1024, weights="packed" if packed else "exact")
    ids = encode(engine.tokenizer, TEXT, special=True)
    out = engine.forward([Row(View(engine.block()), ids=ids)], every=True)
    assert out.every is not None
    read = perplexity(out.every[0], ids)
    found = None
    if loaded.gguf is not None and Reference.covers(file := GGUFFile(loaded.gguf)):
        found = compare(loaded.model, file, ids)
    problems = [] if found is None or found.passed else [failure(name, found)]
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
    folder = "its weights are taken as they are" if loaded.gguf is None else "none for its architecture"
    print(f"{name}: {'wrong' if problems else 'right'}")
    print(f"  against its file  {found or folder}")
    print(f"  perplexity        {read:.4g} on the text that ships, at most {PERPLEXITY:.0f}")
    if loaded.unused:
        print(f"  not known, unused  {', '.join(loaded.unused)}")
    for problem in problems:
        print(f"  {problem}")
    return 1 if problems else 0
