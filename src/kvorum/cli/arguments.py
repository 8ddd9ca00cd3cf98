"""Arguments that several commands have: which model, loaded how; files that will be written."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path

from kvorum.backends.vllm.spread import SpreadOptions
from kvorum.errors import BadRequest
from kvorum.jsontypes import Json


class LoadOptions(SpreadOptions, total=False):
    """What ``Engine.load`` is given besides the model."""

    backend: str
    dtype: str
    kv_dtype: str
    quantize: str | None
    kv_tokens: int | None
    page_size: int
    prefill_chunk: int
    ignore_unknown: bool
    accept_licence: bool
    speculate: bool | None
    draft: str | None
    adapter: str


def load_options(args: Namespace) -> LoadOptions:
    """What the options of the cache and of the weights mean to ``Engine.load``."""
    found = LoadOptions(
        dtype="float32" if args.exact else "auto",
        quantize=None if is_exact(args) else args.quantize,
        kv_dtype=args.kv_dtype,
        kv_tokens=args.kv_tokens,
        ignore_unknown=args.ignore_unknown,
        speculate=False if args.no_speculation else None,
        backend=args.backend,
    )
    if args.draft is not None:
        found["draft"] = check_model(args.draft)
    if args.adapter is not None:
        found["adapter"] = str(Path(args.adapter).resolve())
    return {**found, **spread_options(args)}


def spread_options(args: Namespace) -> SpreadOptions:
    """How the model is spread; what was not said has its default. Raises BadRequest."""
    found = SpreadOptions()
    for name in SpreadOptions.__annotations__:
        given = getattr(args, name, None)
        if given is not None:
            found[name] = _fields(given) if name == "vllm" else given  # type: ignore[literal-required]
    return found


def _fields(pairs: list[str]) -> dict[str, Json]:
    """KEY=VALUE, the value as JSON where it is some. Raises BadRequest."""
    found: dict[str, Json] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key.isidentifier() or not equals:
            raise BadRequest(f"--vllm takes KEY=VALUE, as in quantization=awq, not {pair!r}.")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def check_writable(file: str) -> None:
    """Whether a file can be written, found out now, not after all is done. Leaves no file behind.

    Raises:
        BadRequest: its folder is not there. OSError: it cannot be written.
    """
    path = Path(file)
    if not path.absolute().parent.is_dir():
        raise BadRequest(f"The folder of {file} does not exist; make it or name another.")
    existed = path.exists()
    path.open("a", encoding="utf-8").close()
    if not existed:
        path.unlink()


def is_exact(args: Namespace) -> bool:
    """Whether the weights are taken as they are, and not packed: asked for, or what vLLM does."""
    spread = getattr(args, "backend", "local") == "vllm" and args.quantize == "auto"
    return bool(args.exact or args.quantize == "none" or spread)


def choose_model(name: str | None, *, exact: bool = False) -> str:
    """``check_model`` of what was asked for, or the strongest model of the catalogue that fits in memory."""
    from kvorum.models.catalogue import strongest_that_fits

    return strongest_that_fits(exact=exact).name if name is None else check_model(name)


def check_model(name: str) -> str:
    """The model's name as a trace keeps it: an absolute path for what exists, otherwise the name, if it can be one."""
    from kvorum.models.catalogue import locate

    found = locate(name)
    return str(found.resolve()) if isinstance(found, Path) else name


def accepts_licence(model: str) -> bool:
    """Whether who sits at the terminal accepts the licence of a model of the catalogue that is to be fetched.

    False without a question where there is nothing to accept, and where there is no terminal.
    """
    from kvorum.models.cache_folder import entry_folder
    from kvorum.models.catalogue import Entry, locate
    from kvorum.models.pull import needs_accepting

    entry = locate(model)
    if not isinstance(entry, Entry) or not needs_accepting(entry):
        return False
    here = entry_folder(entry).gguf.is_file() or entry_folder(entry).converted()
    if here or not sys.stdin.isatty() or not sys.stderr.isatty():
        return False
    print(f"{entry.name} is under the licence {entry.licence}; its terms: {entry.terms}", file=sys.stderr)
    print("Do you accept them? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
