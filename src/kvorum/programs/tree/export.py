"""Rollouts for a trainer: one row per leaf, one episode per edge, or the whole tree packed with its mask.

All carry the exact ids that were sampled and their log-probabilities; nothing is tokenised again. Rows and episodes are
JSON lines; a packed tree is a safetensors file in which every shared token stands once.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import torch
from safetensors.torch import save_file
from torch import Tensor

from kvorum.errors import BadRequest
from kvorum.programs.tree.advantages import leaves_below
from kvorum.programs.tree.nodes import PER_EDGE, Tree
from kvorum.runs.recorder import Scope

ExportForm = Literal["rows", "episodes", "packed"]


def rows(tree: Tree, *, auxiliary: bool = False) -> list[dict[str, Any]]:
    """One row per leaf: its whole path. Leaves that are ``auxiliary`` have one on demand alone.

    ``ids``, ``mask`` (1: sampled, has loss), ``logprobs`` and ``advantages`` per token, ``prompt`` (tokens of it),
    ``reward``, ``finish``, ``answer``, ``auxiliary``, ``tree``, ``leaf``, ``nodes`` (the path) and ``shared`` (how many
    rows hold each token). What an auxiliary rollout adds has advantage 0. A shared token is in several rows, as in the
    published trainers.
    """
    found = []
    leaves = [leaf for leaf in tree.leaves if auxiliary or not tree.nodes[leaf].auxiliary]
    counts = Counter(at for leaf in leaves for at in tree.path(leaf))
    for leaf in leaves:
        end, path = tree.nodes[leaf], tree.path(leaf)
        nodes = [(at, tree.nodes[at]) for at in path]
        own = tree.estimator in PER_EDGE
        found.append(
            {
                "leaf": leaf,
                "tree": end.tree,
                "nodes": path,
                "prompt": len(tree.nodes[0].ids),
                "ids": [token for _, node in nodes for token in node.ids],
                "mask": [int(flag) for _, node in nodes for flag in node.sampled],
                "logprobs": [chance for _, node in nodes for chance in node.logprobs],
                "advantages": [
                    ((node.advantage if own else end.advantage) or 0.0) if flag else 0.0
                    for _, node in nodes
                    for flag in node.sampled
                ],
                "shared": [counts[at] for at, node in nodes for _ in node.ids],
                "reward": end.reward,
                "finish": end.finish,
                "answer": end.answer,
                "auxiliary": end.auxiliary,
            }
        )
    return found


def episodes(tree: Tree, *, zero: bool = False) -> list[dict[str, Any]]:
    """One episode per edge (SPO): what stands before it is context without loss, so no token has loss twice.

    Where the estimator is per leaf, an edge takes the mean of the leaves below it. Edges of advantage 0 are left out,
    as in the paper, unless ``zero``.
    """
    found = []
    for at, advantage in enumerate(token_advantages(tree)):
        node = tree.nodes[at]
        if at == 0 or not any(node.sampled) or (not zero and advantage == 0.0):
            continue
        context = [token for other in tree.path(at)[:-1] for token in tree.nodes[other].ids]
        found.append(
            {
                "node": at,
                "parent": node.parent,
                "tree": node.tree,
                "context": context,
                "ids": node.ids,
                "mask": [int(flag) for flag in node.sampled],
                "logprobs": node.logprobs,
                "advantage": advantage,
                "reward": node.reward,
            }
        )
    return found


def token_advantages(tree: Tree) -> list[float]:
    """Per node, the advantage of its tokens if each stands once: the edge's own, or the mean over the leaves below."""
    if tree.estimator in PER_EDGE:
        return [node.advantage or 0.0 for node in tree.nodes]
    scored = {leaf: tree.nodes[leaf].advantage or 0.0 for leaf in tree.leaves}
    below = leaves_below(tree.parents, scored)
    return [sum(scored[leaf] for leaf in group) / max(1, len(group)) for group in below]


def packed(tree: Tree) -> dict[str, Tensor]:
    """Every token once, depth first, as tensors ``[tokens]``.

    ``ids``, ``positions`` (in its path), ``node``, ``loss_mask``, ``logprobs``, ``advantages`` (``token_advantages``),
    ``leaves`` (how many lie below: advantage x leaves is what the rows sum to), and ``enter`` and ``exit``: token i
    sees token j if ``enter[j] <= enter[i]``, ``exit[i] <= exit[j]`` and ``positions[j] <= positions[i]``.
    """
    order = sorted(range(len(tree.nodes)), key=tree.path)
    enter = {at: time for time, at in enumerate(order)}
    leave = dict(enter)
    for at in reversed(order[1:]):
        leave[tree.parents[at]] = max(leave[tree.parents[at]], leave[at])
    scores = token_advantages(tree)
    below = leaves_below(tree.parents, dict.fromkeys(tree.leaves, 0.0))
    names = ("ids", "positions", "node", "loss_mask", "logprobs", "advantages", "leaves", "enter", "exit")
    lines: list[tuple[float, ...]] = []
    for at in order:
        node, rest = tree.nodes[at], (len(below[at]), enter[at], leave[at])
        for offset, (token, flag, chance) in enumerate(zip(node.ids, node.sampled, node.logprobs, strict=True)):
            lines.append((token, node.start + offset, at, flag, chance, scores[at] if flag else 0.0, *rest))
    columns = zip(names, zip(*lines, strict=True), strict=True)
    floats = ("logprobs", "advantages")
    return {
        name: torch.tensor(column, dtype=torch.float32 if name in floats else torch.int64) for name, column in columns
    }


def tree_mask(pack: dict[str, Tensor]) -> Tensor:
    """Bool ``[tokens, tokens]``: row i may attend to column j, for any trainer that takes a mask."""
    enter, leave, at = pack["enter"], pack["exit"], pack["positions"]
    inside = (enter[None, :] <= enter[:, None]) & (leave[:, None] <= leave[None, :])
    return inside & (at[None, :] <= at[:, None])


def save(tree: Tree, path: str | Path, form: ExportForm, *, auxiliary: bool = False) -> Path:
    """Write the tree in that form; rows of ``auxiliary`` leaves on demand alone."""
    path = Path(path)
    if form == "packed":
        rewards = {str(leaf): tree.nodes[leaf].reward for leaf in tree.leaves}
        about = {"estimator": tree.estimator, "parents": json.dumps(tree.parents), "rewards": json.dumps(rewards)}
        save_file(packed(tree), path, metadata=about)
    else:
        lines = rows(tree, auxiliary=auxiliary) if form == "rows" else episodes(tree)
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def file_of(path: str, scope: Scope) -> Path:
    """The file of a tree of that scope; one that grows inside another program has its own, beside the one named."""
    named = Path(path)
    if not scope.nested:
        return named
    return named.with_name(f"{named.stem}.{quote(scope.label.removesuffix('/'), safe='')}{named.suffix}")


def check_file(path: Path) -> None:
    """Find out now whether a tree can be written there when it has grown; folders on the way are made.

    Raises:
        BadRequest: it cannot.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = not path.exists()
        with path.open("ab"):
            pass
        if fresh:
            path.unlink()
    except OSError as error:
        raise BadRequest(f"The tree cannot be written to {path} ({error.strerror}); give another file.") from error
