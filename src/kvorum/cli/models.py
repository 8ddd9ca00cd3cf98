"""`kvorum models` and `kvorum pull`: which models there are, and fetching one."""

from __future__ import annotations

import json
from argparse import Namespace

from rich.table import Table

from kvorum.cli.arguments import accepts_licence
from kvorum.cli.tables import show_table
from kvorum.lab.advice.advice import suits
from kvorum.models.cache_folder import ModelFolder, entry_folder, kept_checks
from kvorum.models.catalogue import (
    CATALOGUE,
    available_memory,
    is_hub_id,
    lookup,
    memory_needed,
    strongest_that_fits,
)
from kvorum.wording import count, plural, size


def models(args: Namespace) -> int:
    """List the catalogue: size, licence, what is on this machine, what fits in memory; or show one model of it."""
    if args.name is not None:
        return _show(args.name, as_json=args.json)
    memory, default = available_memory(), strongest_that_fits().name
    folders = [(entry, entry_folder(entry)) for entry in CATALOGUE.values()]
    if args.json:
        rows = [
            {
                **{name: getattr(entry, name) for name in ("name", "title", "parameters", "licence", "context")},
                "download_bytes": entry.size,
                "on_disk_bytes": folder.on_disk,
                "downloaded": folder.gguf.is_file(),
                "converted": _converted(folder),
                "memory_bytes": memory_needed(entry),
                "exact_memory_bytes": memory_needed(entry, exact=True),
                "fits": memory_needed(entry) <= memory,
                "default": entry.name == default,
                "folder": str(folder.path),
                **dict(zip(("good_for", "bad_for"), suits(entry.name), strict=True)),
            }
            for entry, folder in folders
        ]
        print(json.dumps(rows))
        return 0
    table = Table("name", "model", "download", "licence", "on disk", "memory", box=None, pad_edge=False)
    for entry, folder in folders:
        needed = memory_needed(entry)
        fits = f"{size(needed)}, " + ("fits" if needed <= memory else f"only {size(memory)} free")
        mark = " *" if entry.name == default else ""
        table.add_row(entry.name + mark, entry.title, size(entry.size), entry.licence, _disk(folder), fits)
    show_table(table)
    for name in CATALOGUE:
        if told := _suits(name):
            print(f"\n{name} is {told}.")
    print("\n* what `kvorum solve` takes by default. Also: a folder, a GGUF file, or a hub id (org/name).")
    return 0


def _suits(name: str) -> str:
    """What a model is good for, and what not, as it was measured; nothing where it was not."""
    good, bad = suits(name)
    return f"good for {', '.join(good)}; not for {', '.join(bad)} (everyday jobs, one reply)" if good or bad else ""


def _show(name: str, *, as_json: bool) -> int:
    """One model: where it comes from and lies, and the self-checks that it has passed."""
    entry = lookup(name)
    folder = entry_folder(entry)
    checks = kept_checks(folder.about) | kept_checks(folder.hf)
    if as_json:
        about = {name: getattr(entry, name) for name in ("name", "title", "parameters", "licence", "context", "sha256")}
        print(json.dumps({**about, "on_disk_bytes": folder.on_disk, "folder": str(folder.path), "checks": checks}))
        return 0
    print(f"{entry.name}: {entry.title}, {count(entry.parameters)} weights, {count(entry.context)} tokens")
    print(f"  licence  {entry.licence}" + (f", terms: {entry.terms}" if entry.terms else ""))
    print(f"  source   {entry.pieces[0].requirement} on the package index, {plural(len(entry.pieces), 'piece')}")
    print(f"  sha256   {entry.sha256}")
    print(f"  on disk  {_disk(folder)}, {folder.path}")
    if told := _suits(name):
        print(f"  use      {told}")
    from kvorum.models.selfcheck import SelfCheck

    for found in checks.values():
        print(f"  check    {SelfCheck.of_json(found)}")
    if not checks:
        print(f"  check    none yet; the first load makes it, or kvorum check {entry.name}")
    return 0


def _converted(folder: ModelFolder) -> bool:
    """Whether a conversion is there, of any version: a list refuses none."""
    return (folder.hf / "model.safetensors").is_file()


def _disk(folder: ModelFolder) -> str:
    there = folder.on_disk
    if folder.gguf.is_file() or _converted(folder):
        return f"yes, {size(there)}"
    return f"partly, {size(there)}" if there else "no"


def pull(args: Namespace) -> int:
    """Fetch a model, resuming what was begun."""
    from kvorum.models.hub import fetch_hub
    from kvorum.models.progress import terminal_progress
    from kvorum.models.pull import pull as pull_model

    if args.name not in CATALOGUE and is_hub_id(args.name):
        path = fetch_hub(args.name)
    else:
        entry = lookup(args.name)
        if entry_folder(entry).converted():
            path = entry_folder(entry).path
        else:
            accepted = args.accept_licence or accepts_licence(entry.name)
            with terminal_progress(entry.name) as progress:
                path = pull_model(entry, progress, accept_licence=accepted)
    bytes_there = sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
    if args.json:
        print(json.dumps({"name": args.name, "path": str(path), "bytes": bytes_there}))
    else:
        print(f"{args.name} is here: {path} ({size(bytes_there)}). Next: kvorum solve --model {args.name} PROBLEM")
    return 0
