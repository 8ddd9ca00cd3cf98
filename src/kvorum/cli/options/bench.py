"""Options of `kvorum bench`."""

from __future__ import annotations

import argparse

from kvorum.cli.completion import completed_by, model_names
from kvorum.cli.options.groups import add_cache_dtype, add_ignore_unknown


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    completed_by(
        add("-m", "--model", metavar="NAME", default="smollm2-135m", help="default: smollm2-135m"), model_names
    )
    add("--exact", action="store_true", help="float32 weights, nothing quantised")
    add_cache_dtype(parser)
    add_ignore_unknown(parser)
    add = parser.add_argument_group("ticks and prefill, beside other engines").add_argument
    add("--context", metavar="N,N", help="shared tokens (256,1024,4096; with --caches 8192)")
    add("-w", "--workers", metavar="N,N", help="team sizes (1,2,4,8,16; with --speculation 1,4,8, with --caches 1)")
    words = (
        "of llama.cpp (a copy of the context for each worker), llama.cpp-shared (one for all), transformers, vllm; or "
        "none (default: all that are installed; for whole jobs none)"
    )
    add("--peers", metavar="NAMES", help=words)
    add("--repeats", metavar="N", type=int, help="timed ticks of each cell (9; with --caches 30)")
    words = "an engine sits out from the step that takes it longer (120)"
    add("--limit", metavar="SECONDS", type=float, default=120, help=words)
    words = "engines that copy the context sit out where workers times context is above it (65536)"
    add("--heavy", metavar="TOKENS", type=int, default=65536, help=words)
    add = parser.add_argument_group("also").add_argument
    add("--long", action="store_true", help="one worker behind 8,192 tokens, or all that the model reads, by llama.cpp")
    add("--spans", action="store_true", help="the same tokens in one span and in up to 256")
    add("--attention", action="store_true", help="attention alone, at 4,096 shared tokens")
    add("--teams", action="store_true", help="64 teams of four in one engine: tick, plan, memory")
    add("--quality", action="store_true", help="perplexity and likeliest tokens against the exact mode")
    add("--start", action="store_true", help="seconds to the first token of a later command, beside `import torch`")
    add("--all", action="store_true", help="all of these")
    add = parser.add_argument_group("whole jobs of one text, instead of ticks").add_argument
    add("--ask", action="store_true", help="16 questions of 2,000 tokens: at once, one by one, from cold, kept")
    add("--fields", action="store_true", help="a form of 12 fields from 1,000 tokens")
    add("--decide", action="store_true", help="20 yes/no decisions about 1,000 tokens")
    words = "instead: 40 turns with memory and skills that change, as blocks and as text at the front of the prompt"
    add("--harness", action="store_true", help=words)
    words = "instead: one worker and several with speculation and without: extraction, code editing, free text"
    add("--speculation", action="store_true", help=words)
    words = "instead: one worker behind 8,192 tokens in caches of 32, 16 and 8 bits, in turns (about 3 and 10 minutes)"
    add("--caches", action="store_true", help=words)
    words = (
        "--all, --caches, --speculation, --ask --fields --decide and --harness, one after the other, and all bounds in "
        "one table; -o is written behind each (two cores: about an hour with smollm2-135m, three or four with "
        "qwen2.5-coder-1.5b; a third less without --server)"
    )
    add("--everything", action="store_true", help=words)
    words = "with --speculation and --everything: a smaller model of the same tokenizer, asked what may come next, too"
    completed_by(add("--draft", metavar="NAME", help=words), model_names)
    words = "llama-server, started from its PATH or reached under a URL, does the same on the same file"
    add("--server", metavar="WHERE", default="", help=words)
    add("--slots", metavar="N,N", default="1,16", help="slots of the llama-server that is started, in turns (1,16)")
    add("--rounds", metavar="N", type=int, default=3, help="how often all engines take turns (3)")
    add = parser.add_argument_group("output").add_argument
    add("-o", "--output", metavar="FILE", help="write all figures to FILE as JSON")
    add("--plot", metavar="FILE", help="draw ticks and tokens per second into FILE (.png, .svg, .pdf)")
