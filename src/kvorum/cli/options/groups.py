"""What the options of several commands share: the parser itself, and groups of options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import NoReturn

from kvorum.backends.vllm.spread import MASTER_PORT
from kvorum.cli.completion import completed_by, model_names, program_names


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors read as all errors of kvorum do."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"kvorum: {message}; see `{self.prog} --help`\n")
        raise SystemExit(2)


def add_parsers(above: argparse.ArgumentParser, kind: str, summaries: Mapping[str, str]) -> dict[str, Parser]:
    """A parser for each command, or action of a command, with the options that all have."""
    below = above.add_subparsers(dest=kind, metavar=kind.upper(), parser_class=Parser, required=kind == "action")
    made = {}
    for name, summary in summaries.items():
        made[name] = below.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        made[name].add_argument("--json", action="store_true", help="print one JSON object (or list) for machines")
        made[name].add_argument("--debug", action="store_true", help="on an error, show where it came from")
    return made


def add_program(group: argparse._ActionsContainer, words: str, *, action: str = "store") -> None:
    completed_by(group.add_argument("-p", "--program", metavar="NAME", action=action, help=words), program_names)


def add_model(group: argparse._ActionsContainer, *, several: bool = False) -> None:
    words = "a name of `kvorum models`, folder, GGUF file or hub id (default: the strongest that fits in memory)"
    words += "; may be given again for further ones" * several
    action = "append" if several else "store"
    completed_by(group.add_argument("-m", "--model", metavar="NAME", action=action, help=words), model_names)
    add_cache(group)
    add_cache_dtype(group)
    words = "compute no likely tokens ahead (which changes no token)"
    speculation = group.add_mutually_exclusive_group()
    speculation.add_argument("--no-speculation", action="store_true", help=words)
    words = "a smaller model of the same tokenizer, asked what may come next (which changes no token either)"
    completed_by(speculation.add_argument("--draft", metavar="NAME", help=words), model_names)
    add_adapter(group, "the folder of a LoRA, merged into the model's weights; as -m, its own model is taken")
    add_weights(group)
    add_spread(group)


def add_adapter(group: argparse._ActionsContainer, words: str) -> None:
    group.add_argument("--adapter", metavar="FOLDER", help=words)


def add_sampling(parser: argparse.ArgumentParser, budget: str | None, temperature: float) -> None:
    add = parser.add_argument_group("budget and sampling").add_argument
    words = f"ticks (default: {budget or 512}), or limits such as ticks=512,seconds=60"
    add("-b", "--budget", metavar="LIMITS", default=budget, help=words)
    add("--seed", metavar="N", type=int, help="same seed, same tokens (default: 0)")
    words = f"0 is greedy (default: {temperature:g})"
    add("--temperature", metavar="T", type=float, default=temperature, help=words)
    add("--top-p", metavar="P", type=float, default=0.95, help="nucleus sampling (default: 0.95)")
    words = "a penalty, a bias or a filter, such as repetition_penalty=1.1, dry_multiplier=0.8 or min_p=0.05"
    add("--sampling", metavar="NAME=VALUE", action="append", default=[], help=words)
    add("--thinking", action=argparse.BooleanOptionalAction, help="think first, or not, where the model has a switch")


def add_spread(group: argparse._ActionsContainer, default: str | None = "local") -> None:
    add = group.add_argument
    otherwise = f"({default or 'as in the trace'})"
    words = f"local, or vllm: the model in vLLM's processes, one or several {otherwise}"
    add("--backend", choices=("local", "vllm"), default=default, help=words)
    one = "(1)" if default else otherwise
    add("--tensor-parallel", metavar="N", type=int, help=f"with vllm: processes that each layer is cut over {one}")
    add("--pipeline-parallel", metavar="N", type=int, help=f"with vllm: stages that the layers are laid out over {one}")
    add("--executor", choices=("mp", "ray", "uni"), help="with vllm: own processes (mp, the default), actors of Ray")
    add("--nodes", metavar="N", type=int, help="with vllm: machines; start `kvorum follow` on the further ones (1)")
    words = "with --nodes: this machine's address, where the further ones find it (127.0.0.1)"
    add("--master-addr", metavar="ADDRESS", help=words)
    add("--master-port", metavar="PORT", type=int, help=f"with --nodes: the port of that address ({MASTER_PORT})")
    add("--patience", metavar="SECONDS", type=float, help="with vllm: how long a tick may take (300)")
    add(
        "--untested-vllm", action="store_true", default=None, help="with vllm: go on with a version that was not tested"
    )
    words = "with vllm: a field of its EngineArgs, as in quantization=awq; may be given again"
    add("--vllm", metavar="KEY=VALUE", action="append", help=words)


def add_weights(group: argparse._ActionsContainer) -> None:
    weights = group.add_mutually_exclusive_group()
    weights.add_argument("--exact", action="store_true", help="float32 weights, nothing quantised")
    words = "auto (default), none, or packed: small, fast weights"
    weights.add_argument("--quantize", metavar="FORMAT", default="auto", help=words)
    add_ignore_unknown(group)


def add_ignore_unknown(group: argparse._ActionsContainer) -> None:
    group.add_argument("--ignore-unknown", action="store_true", help="run a GGUF file without what is not known of it")


def add_cache(group: argparse._ActionsContainer) -> None:
    words = "how many tokens the KV cache holds (default: 65536; with --backend vllm on GPUs as many as have room)"
    group.add_argument("--kv-tokens", metavar="N", type=int, help=words)


def add_cache_dtype(group: argparse._ActionsContainer) -> None:
    words = "what the KV cache holds (default: what the model computes in; float16: half of float32; int8: 28%%)"
    group.add_argument("--kv-dtype", choices=("auto", "float32", "float16", "int8"), default="auto", help=words)


def add_output(parser: argparse.ArgumentParser) -> None:
    output = parser.add_argument_group("output")
    output.add_argument("-q", "--quiet", action="store_true", help="print the answer alone")
    output.add_argument("--lines", action="store_true", help="lines of text instead of panes, as in a pipe")


def add_kept(parser: argparse.ArgumentParser) -> None:
    words = "how much is kept of encoded texts, as in 8GB; 0: nothing (default: $KVORUM_KEPT, or 4 GB)"
    parser.add_argument("--kept", metavar="SIZE", help=words)
