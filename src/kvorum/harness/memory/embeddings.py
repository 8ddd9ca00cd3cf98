"""Finding entries by what they mean: static embeddings, a vector for each token of a vocabulary.

The vector of a text is the mean of its tokens' vectors; no model runs for it, and ten thousand entries take about a
second. The vectors lie in a folder as model2vec writes it (``model.safetensors``, ``tokenizer.json``, ``config.json``);
nothing is fetched, and nothing of an entry is kept.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kvorum.errors import BadRequest, need
from kvorum.store.memory.entries import Entry

FOLDER = "KVORUM_EMBEDDINGS"
"""The variable that names the folder."""
LEAST = 0.1
"""The cosine from which on an entry is near enough to be found."""
_WORDS, _MEANING = 1.0, 2.0
"""What a place in either ranking counts; a question shares many words with entries that it does not mean."""


class StaticEmbeddings:
    """The vectors of a folder.

    Raises:
        MissingExtra: model2vec is not installed. BadRequest: there is no such folder, or it holds no such vectors.
    """

    def __init__(self, folder: Path) -> None:
        need("model2vec", "Finding by static embeddings", "embeddings")
        from model2vec import StaticModel

        if not folder.is_dir():
            raise BadRequest(
                f"{folder} is no folder of static embeddings; fetch one, as with `hf download "
                "minishlab/potion-base-8M --local-dir FOLDER`, and name that."
            )
        try:
            self._model = StaticModel.from_pretrained(folder, force_download=False)
        except Exception as error:  # of files, safetensors and tokenizers, each has its own
            raise BadRequest(f"{folder} holds no static embeddings as model2vec writes them: {error}.") from error
        self._known: dict[str, np.ndarray] = {}

    def near(self, query: str, entries: Sequence[Entry]) -> list[Entry]:
        """The entries whose vector is near to that of ``query``, the nearest first."""
        new = [entry for entry in entries if entry.id not in self._known]
        vectors = self._unit([query, *(entry.text for entry in new)])
        made = self._known | {entry.id: vector for entry, vector in zip(new, vectors[1:], strict=True)}
        self._known = {entry.id: made[entry.id] for entry in entries}  # what was forgotten is not held
        found = [(float(vectors[0] @ self._known[entry.id]), entry) for entry in entries]
        found.sort(key=lambda pair: (pair[0], pair[1].time), reverse=True)
        return [entry for cosine, entry in found if cosine >= LEAST]

    def _unit(self, texts: list[str]) -> np.ndarray:
        """The texts' vectors at length 1, of a text without a known token at length 0."""
        vectors = self._model.encode(texts, use_multiprocessing=False).astype(np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: np.ndarray = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
        return unit


def static_embeddings() -> StaticEmbeddings | None:
    """Those that the environment names; None: none. Raises as ``StaticEmbeddings``."""
    named = os.environ.get(FOLDER)
    return StaticEmbeddings(Path(named).expanduser()) if named else None


def fused(by_words: Sequence[Entry], by_meaning: Sequence[Entry]) -> list[Entry]:
    """All entries of both rankings, by the reciprocals of their places in them; the newer of two equals first."""
    score: dict[str, float] = {}
    for ranking, weight in ((by_words, _WORDS), (by_meaning, _MEANING)):
        for at, entry in enumerate(ranking, 1):
            score[entry.id] = score.get(entry.id, 0.0) + weight / (1 + at)
    entries = {entry.id: entry for entry in [*by_words, *by_meaning]}
    return sorted(entries.values(), key=lambda entry: (score[entry.id], entry.time), reverse=True)
