"""The tokenizer of a GGUF file, from its vocabulary: byte-level BPE (`gpt2`) and SentencePiece (`llama`).

Word cutting is by `pretokenizers`; a name not known there is refused, as is every other kind of vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvorum.errors import ModelFileError, UnsupportedModel
from kvorum.models.gguf.metadata import Metadata
from kvorum.models.gguf.pretokenizers import PRETOKENIZERS, PreTokenizer
from kvorum.wording import unknown

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6
_TYPES = range(7)  # one that is not said is 0, one that is not used 5
_NAMED = ("bos", "eos", "eot", "eom", "unknown", "padding", "fim_pad", "fim_rep", "fim_sep")
_TRANSFORMERS_NAMES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
_STRIP_NOTHING = ("<unk>", "<s>", "<|endoftext|>")
_SPACE = "▁"

# Tokens that end a text by what they are called, where a file does not say it (llama.cpp's list).
_ENDS = frozenset(
    (
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|flush|>",
        "<|calls|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "</s>",
        "<|eom_id|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "[EOS]",
        "<|end_of_text|>",
        "<end_of_utterance>",
        "<eos>",
        "<turn|>",
        "<｜end▁of▁sentence｜>",
    )
)


@dataclass(frozen=True)
class Vocabulary:
    """What a file says of its tokens, checked."""

    kind: str
    pre: PreTokenizer
    tokens: Sequence[str]
    types: Sequence[int]
    scores: Sequence[float]
    merges: Sequence[tuple[str, str]]
    ids: Mapping[str, int]
    """Named tokens: bos, eos, eot, eom, unknown, padding, fim_pad, fim_rep, fim_sep; those that there are."""
    begins: bool
    ends: bool
    prefix: bool
    """Text, and what follows a special token, has a space put before it."""
    strips: bool
    """Blanks behind a special token belong to it (Phi 3's)."""
    templates: Mapping[str, str]

    def is_end(self, token: int) -> bool:
        """Whether a token ends a text by what it is called; `</s>` and the like may be plain text to a vocabulary."""
        text = self.tokens[token]
        return text in _ENDS and (self.types[token] != _NORMAL or text.startswith(("<|", "<｜", "<end_of")))

    @property
    def end_ids(self) -> list[int]:
        """Every token that ends a text, the file's own end token first."""
        named = [self.ids[name] for name in ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep") if name in self.ids]
        texts = {text: token for token, text in enumerate(self.tokens) if self.is_end(token)}
        if {"<|return|>", "<|call|>"} <= texts.keys():
            texts.pop("<|end|>", None)  # there it ends a part of a message only
        return list(dict.fromkeys((*named, *texts.values())))


def read_vocabulary(metadata: Metadata, *, ignore_unknown: bool = False) -> Vocabulary:
    """The vocabulary, its keys taken from `metadata`. Raises `ModelFileError` or `UnsupportedModel` with the reason."""
    path = metadata.file.path
    kind = metadata.text("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        said = "has no tokenizer" if kind in (None, "no_vocab", "none") else f"has a tokenizer of the kind {kind!r}"
        raise UnsupportedModel(f"{path} {said}; those of the kinds gpt2 and llama are read.")
    pre = _pretokenizer(metadata, kind, ignore_unknown)
    tokens = metadata.texts("tokenizer.ggml.tokens") or []
    tokens = [token or f"[EMPTY_{at}]" for at, token in enumerate(tokens)]
    if not tokens or len(set(tokens)) != len(tokens):
        raise ModelFileError(f"{path} cannot be run: its tokenizer.ggml.tokens are none, or some are there twice.")
    kinds = metadata.numbers("tokenizer.ggml.token_type") or [_NORMAL] * len(tokens)
    scores = metadata.numbers("tokenizer.ggml.scores") or []
    merges = [_pair(merge) for merge in metadata.texts("tokenizer.ggml.merges") or []]
    if len(kinds) != len(tokens) or (len(scores) != len(tokens) and (scores or kind == "llama")):
        raise ModelFileError(f"{path} cannot be run: its tokens have too few types or scores, or too many.")
    if not all(number in _TYPES for number in kinds) or not all(map(math.isfinite, scores)):
        raise ModelFileError(f"{path} cannot be run: its tokens have types or scores that are none.")
    if kind == "gpt2":
        known = set(tokens)
        for left, right in merges:
            if left not in known or right not in known or left + right not in known:
                raise ModelFileError(f"{path} cannot be run: its merge {left!r} {right!r} is of no tokens that it has.")
        if "tokenizer.ggml.merges" not in metadata:
            raise ModelFileError(f"{path} cannot be run: its key tokenizer.ggml.merges is missing.")
    ids = _named_ids(metadata, len(tokens))
    begins = metadata.flag("tokenizer.ggml.add_bos_token", kind == "llama" or pre.begins)
    ends = metadata.flag("tokenizer.ggml.add_eos_token", False)
    prefix = metadata.flag("tokenizer.ggml.add_space_prefix", kind == "llama")
    for wanted, name in ((begins, "bos"), (ends, "eos")):
        if wanted and name not in ids:
            raise ModelFileError(f"{path} cannot be run: its key tokenizer.ggml.{name}_token_id is missing.")
    if kind == "gpt2":
        prefix = False  # no effect on these vocabularies
    name = (metadata.text("general.name") or "").lower()
    strips = "phi-3" in name or "phi3" in name
    types = [int(number) for number in kinds]
    return Vocabulary(kind, pre, tokens, types, scores, merges, ids, begins, ends, prefix, strips, _templates(metadata))


def _pretokenizer(metadata: Metadata, kind: str, ignore_unknown: bool) -> PreTokenizer:
    name = metadata.text("tokenizer.ggml.pre")
    if kind == "llama":
        return PRETOKENIZERS["default"]  # not used: these vocabularies do not cut words
    if name is not None and name in PRETOKENIZERS:
        return PRETOKENIZERS[name]
    if ignore_unknown:
        return PRETOKENIZERS["default"]
    path = metadata.file.path
    if name is None:
        raise UnsupportedModel(
            f"{path} does not say how its tokenizer cuts words (tokenizer.ggml.pre); "
            "--ignore-unknown (ignore_unknown=True) cuts them as llama.cpp does then."
        )
    raise UnsupportedModel(
        f"{path} has a tokenizer that cuts words in a way not known here. "
        + unknown("tokenizer.ggml.pre", name, PRETOKENIZERS)
    )


def _pair(merge: str) -> tuple[str, str]:
    at = merge.find(" ", 1)
    return (merge[:at], merge[at + 1 :]) if at > 0 else (merge, "")


def _named_ids(metadata: Metadata, tokens: int) -> dict[str, int]:
    ids = {}
    for name in _NAMED:
        key = f"tokenizer.ggml.{name}_token_id"
        if key not in metadata:
            continue
        found = metadata.whole(key)
        if found >= tokens:
            raise ModelFileError(f"{metadata.file.path} cannot be run: its {key} is {found} of {tokens} tokens.")
        ids[name] = found
    return ids


def _templates(metadata: Metadata) -> dict[str, str]:
    """The chat templates by name, the one without a name as `default`."""
    found = {}
    for key in metadata.file.metadata:
        if key == "tokenizer.chat_template" or key.startswith("tokenizer.chat_template."):
            text = metadata.text(key)
            if text:
                found[key.removeprefix("tokenizer.chat_template").removeprefix(".") or "default"] = text
    return found


def build_tokenizer(vocabulary: Vocabulary) -> PreTrainedTokenizerFast:
    """The tokenizer of transformers; special tokens in a text are found where it is not told to split them."""
    from tokenizers import AddedToken, processors
    from transformers import PreTrainedTokenizerFast

    made = _byte_level(vocabulary) if vocabulary.kind == "gpt2" else _sentence_pieces(vocabulary)
    special, plain = [], []
    for at, token in enumerate(vocabulary.tokens):
        kind = vocabulary.types[at]
        if kind in (_UNKNOWN, _CONTROL) or vocabulary.is_end(at):
            special.append(token)
        elif kind == _USER_DEFINED:
            plain.append(token)
    strip = {token for token in (*special, *plain) if vocabulary.strips and token not in _STRIP_NOTHING}
    made.add_special_tokens([AddedToken(t, normalized=False, special=True, rstrip=t in strip) for t in special])
    made.add_tokens([AddedToken(t, normalized=False, special=False, rstrip=t in strip) for t in plain])
    names = {name: vocabulary.tokens[token] for name, token in vocabulary.ids.items()}
    before = [names["bos"]] if vocabulary.begins else []
    after = [names["eos"]] if vocabulary.ends else []
    if before or after:
        one = [*before, "$A", *after]
        two = [*one, *(f"{token}:1" for token in (*before, "$B", *after))]
        marks = [(token, vocabulary.tokens.index(token)) for token in {*before, *after}]
        made.post_processor = processors.TemplateProcessing(single=one, pair=two, special_tokens=marks)
    templates = vocabulary.templates
    named = {f"{name}_token": names[key] for name, key in _TRANSFORMERS_NAMES.items() if key in names}
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        clean_up_tokenization_spaces=False,
        chat_template=templates.get("default") if templates.keys() <= {"default"} else dict(templates),
        extra_special_tokens=[token for token in special if token not in named.values()],
        **named,
    )


def _byte_level(vocabulary: Vocabulary) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    ids = {token: at for at, token in enumerate(vocabulary.tokens)}
    made = Tokenizer(models.BPE(ids, list(vocabulary.merges), ignore_merges=vocabulary.pre.whole_words))
    if vocabulary.pre.composed:
        made.normalizer = normalizers.NFC()
    cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in vocabulary.pre.patterns]
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    return made


def _sentence_pieces(vocabulary: Vocabulary) -> Tokenizer:
    """Pieces are merged by their score; what is no piece is spelled in bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    ids = {token: at for at, token in enumerate(vocabulary.tokens)}
    unknown = vocabulary.tokens[vocabulary.ids["unknown"]] if "unknown" in vocabulary.ids else None
    made = Tokenizer(
        models.BPE(ids, _merges_by_score(vocabulary, ids), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    spaces = normalizers.Replace(" ", _SPACE)
    made.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), spaces]) if vocabulary.prefix else spaces
    back = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*back, decoders.Strip(" ", 1, 0)] if vocabulary.prefix else back)
    return made


def _merges_by_score(vocabulary: Vocabulary, ids: Mapping[str, int]) -> list[tuple[str, str]]:
    """Every way to make a piece of two others, the highest score first."""
    merges = []
    for at in sorted(range(len(vocabulary.tokens)), key=lambda at: (-vocabulary.scores[at], at)):
        token = vocabulary.tokens[at]
        if vocabulary.types[at] not in (_UNKNOWN, _CONTROL, _BYTE):
            cuts = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
            merges += [(left, right) for left, right in cuts if left in ids and right in ids]
    return merges
