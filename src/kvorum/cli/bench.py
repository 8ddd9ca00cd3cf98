"""`kvorum bench`: ticks, prefill and spans on this machine, beside other engines on the same weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvorum.cli.options import check_model
from kvorum.errors import BadRequest

if TYPE_CHECKING:
    from argparse import Namespace

    from kvorum.bench.sides import Side
    from kvorum.engine.engine import Engine

PEERS = ("llama.cpp", "transformers")


def bench(args: Namespace) -> int:
    """Measure, print the tables (or JSON), and keep what was measured if it is stopped."""
    contexts, workers = _numbers("--context", args.context), _numbers("--workers", args.workers)
    peers = _peers(args.peers)
    if args.repeats < 1:
        raise BadRequest("--repeats must be 1 or more.")
    if args.output is not None and not Path(args.output).absolute().parent.is_dir():
        raise BadRequest(f"The folder of {args.output} does not exist; make it or name another.")
    model = check_model(args.model)

    from rich.console import Console

    from kvorum.bench.compare import Bench, compare, spans
    from kvorum.bench.machine import about, bandwidth, peak_memory, weight_bytes
    from kvorum.bench.report import as_json, show
    from kvorum.bench.sides import Shared
    from kvorum.engine.engine import Engine

    def progress(words: str) -> None:
        print(words, file=sys.stderr, flush=True)

    room = 2 * max(contexts) + 64 * max(workers) + (24576 if args.spans else 2048)  # tokens of the blocks at once
    exact: dict[str, Any] = {"quantize": None, "dtype": "float32"} if args.exact else {}
    engine = Engine.load(model, kv_tokens=room, **exact)
    facts: dict[str, Any] = {
        "model": engine.about(),
        "command": ["kvorum", *sys.argv[1:]],
        "machine": about(),
        "bandwidth": bandwidth(),
        "weight_bytes": weight_bytes(engine.model),
        "bytes_per_token": engine.pool.bytes_per_token,
    }
    found, ours = Bench(), Shared(engine)
    stopped = False
    try:
        sides = [side for peer in peers if (side := _side(peer, engine, model, args, progress)) is not None]
        compare(
            ours, sides, contexts, workers, repeats=args.repeats, heavy=args.heavy, bench=found, progress=progress
        )  # fmt: skip
        if args.spans:
            progress("many spans")
            spans(ours, 2048, (1, 16, 64, 256), repeats=args.repeats, bench=found)
    except KeyboardInterrupt:
        stopped = True
    facts["peak_memory"] = peak_memory()
    result = as_json(found, facts)
    if args.output is not None:
        Path(args.output).write_text(json.dumps(result, indent=1) + "\n")
    if args.json:
        print(json.dumps(result))
    else:
        facts["model"] = facts["model"]["name"]
        show(found, facts, Console())
    return 130 if stopped else 0


def _numbers(option: str, text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise BadRequest(f"{option} takes whole numbers above 0 with commas between, such as 1,4,8; not {text!r}.")
    return numbers


def _peers(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")] if text.strip() not in ("", "none") else []
    for name in names:
        if name not in PEERS:
            raise BadRequest(f"There is no peer {name!r}; there are: {', '.join(PEERS)}, or none.")
    return names


def _side(peer: str, engine: Engine, model: str, args: Namespace, progress: Any) -> Side | None:
    """The peer with the same weights, or None with a word on why not."""
    from kvorum.bench.sides import Generate, Slots, gguf_of, llama_cpp
    from kvorum.models.load import load_model

    if peer == "transformers":
        return Generate(engine.model if args.exact else load_model(model).model)
    gguf = gguf_of(model)
    if llama_cpp() is None:
        progress("llama.cpp is left out: it is not installed (pip install 'kvorum[bench]')")
    elif gguf is None:
        progress(f"llama.cpp is left out: {model} does not come from a GGUF file")
    else:
        return Slots(gguf, spare=args.repeats + 2)
    return None
