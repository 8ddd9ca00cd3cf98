"""A model's fingerprint: which weights made these keys and values.

A saved block is only good for the model that wrote it. The fingerprint covers the configuration and a strided
sample of every weight, as float32, so the model's dtype is not part of it: callers keep that beside it. A model
whose linears were quantised has other weights, computes other keys, and so has another fingerprint.
It is quick, and no proof: two models that differ in unsampled weights alone look the same.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import torch
from torch import nn

from kvorum.jsontypes import Json

_SAMPLES = 64  # values of each tensor
_NOT_ARCHITECTURE = re.compile(
    r"_.*|architectures|(torch_)?dtype|transformers_version|quantization_config|use_cache|return_dict"
    r"|output_(attentions|hidden_states)|(bos|eos|pad)_token_id"
)


def fingerprint(model: nn.Module) -> str:
    """The sha256, in hex, of the model's configuration and of a sample of its weights."""
    config = getattr(model, "config", None)
    about = json.dumps({} if config is None else config.to_dict(), default=str)
    architecture = json.loads(about, object_hook=_architecture)
    digest = hashlib.sha256(json.dumps(architecture, sort_keys=True).encode())
    with torch.no_grad():
        for name, weight in sorted(model.state_dict().items()):
            digest.update(f"{name} {tuple(weight.shape)}".encode())
            if weight.device.type == "meta" or not weight.numel():
                continue
            flat = weight.detach().reshape(-1)
            count = min(_SAMPLES, flat.numel())
            where = torch.arange(count, device=flat.device) * (flat.numel() // count)
            digest.update(flat[where].to(torch.float32).cpu().numpy().tobytes())
    return digest.hexdigest()


def _architecture(entries: dict[str, Json]) -> dict[str, Json]:
    """What of a configuration changes keys and values."""
    return {key: value for key, value in entries.items() if not _NOT_ARCHITECTURE.fullmatch(key)}


def fingerprint_of_files(folder: Path, held: str) -> str:
    """As ``fingerprint``, of a folder whose weights are in a form that is not loaded here; ``held`` names it."""
    digest = hashlib.sha256(f"{held} ".encode() + (folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for part in range(_SAMPLES):
                file.seek(size * part // _SAMPLES)
                digest.update(file.read(_SAMPLES))
    return digest.hexdigest()
