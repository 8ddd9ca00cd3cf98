"""The account of a folder's config.json: what in it would change the computation and is passed over by transformers.

transformers takes any field and passes over those that the model's class does not know. A field that the class does
not know is refused if it is known to change what is computed and has not the value at which it has no effect; what is
known to have none, is null, or says again what the model has under another word is left alone; the rest is refused
too, since nobody can say that it has none, unless whoever loads the model says to pass it over: then it is named
(`kvorum check`). Which is which stands in `config_fields.toml`.

Not covered: sizes, counts and biases, which the shapes and names of the weights tell (`folder`).
"""

from __future__ import annotations

import inspect
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvorum.errors import ModelFileError, UnsupportedModel
from kvorum.jsontypes import Json
from kvorum.models.gguf.metadata import listed

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_TABLES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_CHANGING: Mapping[str, Sequence[Json]] = _TABLES["changing"]
_HARMLESS = re.compile("|".join(pattern for patterns in _TABLES["harmless"].values() for pattern in patterns))
_OWN: Mapping[str, Mapping[str, Json]] = _TABLES["own"]
_SAME: Sequence[Sequence[str]] = _TABLES["same"]["words"]
_ROPE: Mapping[str, Sequence[str]] = _TABLES["rope"]


def account(raw: Mapping[str, Json], config: Any, model_class: type, *, ignore_unknown: bool = False) -> list[str]:
    """The fields of config.json (`raw`) that the model does not use and whose meaning is not known here.

    Raises `UnsupportedModel` for one that would change what is computed and, but with `ignore_unknown`, for one that is
    not known; `ModelFileError` for one that must be there and, but with `ignore_unknown`, for one that is by a letter
    another than a field that the model has.
    """
    inner = raw.get("text_config")
    text = config.get_text_config()
    if isinstance(inner, dict) and text is not config:
        raw, config = inner, text
    else:
        _require(raw, config)
    words = _words(config, model_class)
    known = {*inspect.signature(type(config)).parameters, *type(config).attribute_map, *words}
    unknown = {name: value for name, value in raw.items() if name not in known and not _said(name, value, config)}
    changing = [f"{name} = {_shown(unknown[name])}" for name in unknown if _changes(name, unknown[name], config)]
    changing += _rope_changes(raw, config, partial="partial_rotary_factor" in words)
    if changing:
        raise UnsupportedModel(
            f"config.json asks for what transformers does not compute for models of type {config.model_type}: "
            f"{', '.join(changing)}."
        )
    own = [name for name in inspect.signature(type(config)).parameters if len(name) > 4 and name not in raw]
    for name in () if ignore_unknown else unknown:
        if name not in _CHANGING and (meant := [field for field in own if _by_a_letter(name, field)]):
            raise ModelFileError(
                f"config.json has no {meant[0]}, but {name}, which is not known; if it is meant to be there, "
                "--ignore-unknown (ignore_unknown=True) runs the model without."
            )
    told = (name for name, value in unknown.items() if value is not None)  # null: there is none of it
    unused = sorted(name for name in told if name not in _CHANGING and not _HARMLESS.fullmatch(name))
    if unused and not ignore_unknown:
        raise UnsupportedModel(
            f"config.json has {listed(unused)}, which is not known here and may change what is computed; "
            "--ignore-unknown (ignore_unknown=True) runs the model without."
        )
    return unused


def _by_a_letter(one: str, other: str) -> bool:
    """Whether two words differ by one letter that is another, or more, or less."""
    if abs(len(one) - len(other)) > 1:
        return False
    at = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[at + 1 :] in (other[at + 1 :], other[at:]) or one[at:] == other[at + 1 :]


def _require(raw: Mapping[str, Json], config: Any) -> None:
    """What the shapes of weights cannot tell must stand in the file: a default would be another model."""
    named = type(config).attribute_map
    for name in ("num_attention_heads", "hidden_size", "vocab_size"):
        own = named.get(name, name)
        if own in inspect.signature(type(config)).parameters and not {name, own} & raw.keys():
            raise ModelFileError(f"config.json does not say {own}.")


def _words(config: Any, model_class: type) -> set[str]:
    """Every word of the modules that define the configuration and the model: what is not among them is not used."""
    modules = [sys.modules[kind.__module__] for kind in (type(config), model_class)]
    return set(re.findall(r"\w+", "\n".join(map(inspect.getsource, modules))))


def _said(name: str, value: Json, config: PretrainedConfig) -> bool:
    """Whether a field has the value with which the model computes in any case, or has under another word."""
    own = _OWN.get(str(config.model_type), {})
    if name in own:
        return value == own[name]
    others = (word for words in _SAME if name in words for word in words if word != name)
    return value is not None and any(getattr(config, word, None) == value for word in others)


def _changes(name: str, value: Json, config: PretrainedConfig) -> bool:
    if name not in _CHANGING or value in (None, *_CHANGING[name]):
        return False
    if name == "activation" and getattr(config, "hidden_act", None) != "silu":
        return True
    if name == "sliding_window" and getattr(config, "use_sliding_window", None) is False:
        return False
    if name in ("layer_types", "layers_block_type", "attention_types") and isinstance(value, list):
        return any(item not in ("full_attention", "attention", "global") for item in value)
    if name == "no_rope_layers" and isinstance(value, list):
        return not all(value)
    if name in ("rope_scaling", "rope_parameters") and isinstance(value, dict):
        return not hasattr(config, "rope_parameters") and value.get("rope_type", value.get("type")) != "default"
    return True


def _rope_changes(raw: Mapping[str, Json], config: Any, *, partial: bool) -> list[str]:
    """What a rotation's parameters ask for that its kind does not have."""
    if config.model_type == "phimoe" or not hasattr(config, "rope_parameters"):
        return []
    found = []
    for field in ("rope_scaling", "rope_parameters"):
        given = raw.get(field)
        if not isinstance(given, dict):
            continue
        sets = [item for item in given.values() if isinstance(item, dict)] or [given]
        for rope in sets:
            kind = str(rope.get("rope_type") or rope.get("type") or "default")
            kind = {"su": "longrope"}.get(kind, kind)
            allowed = {*_ROPE["*"], *_ROPE.get(kind, ()), *(["partial_rotary_factor"] if partial else [])}
            found += [
                f"{field}.{key} = {_shown(value)} of the kind {kind}"
                for key, value in rope.items()
                if key not in allowed and value is not None and not (key.endswith("factor") and value == 1)
            ]
    return found


def _shown(value: Json) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
