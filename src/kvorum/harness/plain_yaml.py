"""YAML of files that somebody else may have written: texts alone, and down to a depth.

A reader of YAML takes seconds for thousands of brackets, and more than that for more; the depth is counted first.
"""

from __future__ import annotations

import yaml

_DEEPEST = 32


def compose(text: str) -> yaml.Node | None:
    """The parts of a text, of which every scalar is a text; None: it is empty.

    Raises:
        yaml.YAMLError: it is no YAML, or its parts stand too deep in one another.
    """
    depth = 0
    for event in yaml.parse(text, Loader=yaml.BaseLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise yaml.YAMLError(f"its parts stand in one another more than {_DEEPEST} deep")
    return yaml.compose(text, Loader=yaml.BaseLoader)
