"""Options of `kvorum study` and its actions."""

from __future__ import annotations

import argparse

from kvorum.cli.options.groups import add_ignore_unknown, add_parsers

ACTIONS = {
    "run": "run all cells that are not done yet; an interrupted study goes on where it stopped",
    "report": "write report.html and report.md from the table of a study",
    "gallery": "write gallery.html and gallery.md: what all studies of a folder claim, and their pictures",
    "attention": "write attention.html and attention.md: heat maps of whose words the workers attended to",
    "variance": "take the variance of the scores apart: tokens, program, channel, workers, model, task",
    "faults": "inject faults, watch with the detectors, write their precision and recall",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    actions = add_parsers(parser, "action", ACTIONS)
    add_ignore_unknown(actions["faults"])
    add = actions.pop("faults").add_argument
    add("-o", "--output", metavar="FOLDER", default="faults-results", help="of the results")
    add("--dev", metavar="N", type=int, default=8, help="seeds for development, from 0 on (8)")
    add("--seeds", metavar="N", type=int, default=20, help="held-out seeds behind them (20)")
    words = "let this model write too, on --model-seeds of each kind (default: none; scripted workers alone)"
    add("-m", "--model", metavar="NAME", default="none", help=words)
    add("--model-dev", metavar="N", type=int, default=2, help="development seeds for the model (2)")
    add("--model-seeds", metavar="N", type=int, default=6, help="held-out seeds for the model (6)")
    add("--scenarios", "--worlds", metavar="NAMES", help="some scenarios only, with commas")
    add = actions.pop("gallery").add_argument
    words = "the studies, NAME.yaml, with their results in NAME-results beside them (studies)"
    add("folder", metavar="FOLDER", nargs="?", default="studies", help=words)
    add("-o", "--output", metavar="FOLDER", default="gallery", help="of the page (gallery)")
    for action in actions.values():
        action.add_argument(
            "file", metavar="FILE", help="the study, in YAML or in Python, which is run; see docs/lab.md"
        )
        action.add_argument("-o", "--output", metavar="FOLDER", help="of the results (default: NAME-results)")
    add_ignore_unknown(actions["run"])
    words = "run the cells on this Ray cluster: its address, auto, or local to begin one (default: in this process)"
    actions["run"].add_argument("--ray", metavar="ADDRESS", help=words)
    actions["variance"].add_argument(
        "--draws", metavar="N", type=int, default=200, help="bootstrap draws of items (200)"
    )
