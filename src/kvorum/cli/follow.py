"""`kvorum follow`: a further machine of a model that `kvorum serve --nodes` (or another command) runs on several."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kvorum.backends.vllm.spread import MASTER_PORT
from kvorum.cli.arguments import check_model
from kvorum.cli.planned_run import terminable
from kvorum.errors import BadRequest

if TYPE_CHECKING:
    from argparse import Namespace


def follow(args: Namespace) -> int:
    """Until the first node ends. Returns the exit code."""
    address, port = _place(args.address)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else torch shows a C++ stack where the first node is gone
    from kvorum.backends.vllm.follow import follow as take_part
    from kvorum.models.progress import terminal_progress

    def tell(words: str) -> None:
        print(json.dumps({"follow": words}) if args.json else f"kvorum follow: {words}", flush=True)

    model = None if args.model is None else check_model(args.model)
    with terminable(), terminal_progress(Path(args.model or "the model").name) as progress:
        take_part(address, port, model=model, patience=args.patience, progress=progress, told=tell)
    if not args.json:
        print("kvorum: the first node has ended", file=sys.stderr)
    return 0


def _place(given: str) -> tuple[str, int]:
    """Address and port of ``ADDRESS[:PORT]``; IPv6 in brackets. Raises BadRequest."""
    address, colon, port = given.rpartition(":")
    if given.endswith("]") or not colon:
        address, port = given, str(MASTER_PORT)
    if not port.isdecimal() or not 0 < int(port) < 65536 or not address:
        raise BadRequest(f"{given!r} is no ADDRESS[:PORT], as in 10.0.0.1:{MASTER_PORT}.")
    return address.removeprefix("[").removesuffix("]"), int(port)
