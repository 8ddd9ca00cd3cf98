"""What GGUF files say besides their weights: the account of keys, vocabularies, templates and end tokens."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import regex
from tokenizers import pre_tokenizers

import gguf_corpus as corpus
from kvorum.cli.main import main
from kvorum.errors import KvorumError, UnsupportedModel
from kvorum.models.gguf.architectures import ARCHITECTURES
from kvorum.models.gguf.file import GGUFFile
from kvorum.models.gguf.keys import LOADER_KEYS, LOADER_KEYS_OF, LOADER_KEYS_TOKENIZER, VERSION
from kvorum.models.gguf.metadata import Metadata
from kvorum.models.gguf.model import read_model
from kvorum.models.gguf.pretokenizers import PRETOKENIZERS
from kvorum.models.gguf.tokenizer import build_tokenizer, read_vocabulary
from kvorum.models.load import load_model
from kvorum.models.tokenizer import end_ids

TEXTS = [
    "Hello world's 12345 things, it's 3.14!\n\n  Next\tline \r\n",
    "    def f(x):\n        return x**2  # comment\n",
    "ÉCOLE école 中文字符 かな ΩΣ жЖ 한국어 \u0301 e\u0301",
    "THE Quick bROWN fox'LL don'T 007 1234567890 <|im_start|>",
    " \n \n\t  a  b   c\u00a0d\u2028e 🫠👍🏽 …“quotes”‘x’",
    "",
]


def test_every_key_of_the_loader_is_in_the_account(tmp_path: Path) -> None:
    """Whatever its value, no such key is a stranger: it is used, without effect, or refused for what it asks."""
    assert VERSION.startswith("ggml-org/llama.cpp@")
    assert LOADER_KEYS_OF.keys() == ARCHITECTURES.keys()
    for arch, own in LOADER_KEYS_OF.items():
        what = corpus.contents(arch, corpus.tiny(arch, num_hidden_layers=1))
        file = GGUFFile(corpus.save(tmp_path / "tiny.gguf", what))
        before = dict(file.metadata)
        for key in (*(f"{arch}.{key}" for key in (*LOADER_KEYS, *own)), *LOADER_KEYS_TOKENIZER):
            file.metadata = {key: 3, **before}
            said = ""
            try:
                read_model(file)
            except KvorumError as error:
                said = str(error)
            assert "not known here" not in said, key


def test_unknown_keys_are_left_out_where_that_is_asked_for(home: Path, tmp_path: Path) -> None:
    what = corpus.contents("llama", corpus.tiny("llama"))
    what.keys["llama.wisdom"] = 3
    what.tensors["blk.0.wisdom.weight"] = what.tensors["output_norm.weight"]
    path = corpus.save(tmp_path / "tiny.gguf", what)
    left_out = ("llama.wisdom", "blk.0.wisdom.weight")
    for packed in (False, True):
        assert load_model(path, packed=packed, ignore_unknown=True).unused == left_out
        assert load_model(path, packed=packed, ignore_unknown=True).unused == left_out
        with pytest.raises(UnsupportedModel, match=r"llama\.wisdom, blk\.0\.wisdom\.weight.*--ignore-unknown"):
            load_model(path, packed=packed)


def test_a_trace_says_what_was_left_out_and_a_replay_leaves_it_out(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    what = corpus.contents("llama", corpus.tiny("llama"))
    what.keys["llama.wisdom"] = 3
    path, trace = str(corpus.save(tmp_path / "tiny.gguf", what)), str(tmp_path / "run.jsonl")
    words = ["solve", "1 + 1?", "-m", path, "-p", "solo", "-w", "1", "-b", "4", "--trace", trace, "--exact"]
    assert main([*words, "--ignore-unknown"]) in (0, 1)
    start = json.loads(Path(trace).read_text().partition("\n")[0])
    assert start["model"]["unused"] == ["llama.wisdom"]
    assert main(["replay", trace]) in (0, 1)
    assert main(["check", path, "--exact", "--ignore-unknown"]) == 1
    assert "not known, unused     llama.wisdom" in capsys.readouterr().out


def vocabulary(tmp_path: Path, keys: dict[str, Any]) -> Any:
    what = corpus.Contents("llama", keys, {})
    return read_vocabulary(Metadata(GGUFFile(corpus.save(tmp_path / "tiny.gguf", what))))


def pieces_by_score(text: str, keys: dict[str, Any]) -> list[int]:
    """SentencePiece by its definition: of two neighbours that make a piece, those with the highest score are joined."""
    tokens: list[str] = keys["tokenizer.ggml.tokens"]
    ids = {token: at for at, token in enumerate(tokens)}
    scores = keys["tokenizer.ggml.scores"]
    parts = list(text.replace(" ", "▁"))
    while True:
        joined = [(scores[ids[a + b]], -at) for at, (a, b) in enumerate(pairwise(parts)) if a + b in ids]
        if not joined:
            break
        at = -max(joined)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    found: list[int] = []
    for part in parts:
        found += [ids[part]] if part in ids else [ids[f"<0x{byte:02X}>"] for byte in part.encode()]
    return found


@pytest.mark.parametrize("prefix", [True, False])
def test_sentence_pieces_are_joined_by_their_scores(prefix: bool, tmp_path: Path) -> None:
    keys = corpus.piece_keys(**{"tokenizer.ggml.add_space_prefix": prefix})
    tokenizer = build_tokenizer(vocabulary(tmp_path, keys))
    space = " " if prefix else ""
    draw = random.Random(0)
    for _ in range(400):
        text = "".join(draw.choice("abcheté  🫠\n▁") for _ in range(draw.randint(1, 14)))
        ids = tokenizer(text).input_ids
        assert ids == [1, *pieces_by_score(space + text, keys)], text
        assert tokenizer.decode(ids[1:]) == text.replace("▁", " ")
    user, more = (len(keys["tokenizer.ggml.tokens"]) - back for back in (2, 1))
    for mark, token in (("<|user|>", user), ("[more]", more)):
        ids = tokenizer(f"ab{mark}the", add_special_tokens=False).input_ids
        assert ids == [*pieces_by_score(f"{space}ab", keys), token, *pieces_by_score(f"{space}the", keys)]


def test_blanks_behind_phi_3s_special_tokens_belong_to_them(tmp_path: Path) -> None:
    for name, count in (("Phi 3", 3), ("Phi-3 mini", 2)):
        keys = {**corpus.piece_keys(), "general.name": name}
        tokenizer = build_tokenizer(vocabulary(tmp_path, keys))
        assert len(tokenizer("<|user|> \n", add_special_tokens=False).input_ids) >= count - 1
        assert (" " in tokenizer.decode(tokenizer("<|user|> ", add_special_tokens=False).input_ids)) == (
            name == "Phi 3"
        )


def cuts(name: str, text: str) -> list[str]:
    """The words that the patterns of `name` cut, by another engine of regular expressions."""
    parts = [text] if text else []
    for pattern in PRETOKENIZERS[name].patterns:
        found = []
        for part in parts:
            ends = sorted(
                {at for match in regex.finditer(pattern, part, regex.V0) for at in match.span()} | {0, len(part)}
            )
            found += [part[a:b] for a, b in pairwise(ends)]
        parts = found
    return parts


@pytest.mark.parametrize("name", sorted(PRETOKENIZERS))
def test_words_are_cut_as_the_name_says(name: str, tmp_path: Path) -> None:
    tokenizer = build_tokenizer(vocabulary(tmp_path, corpus.byte_keys(name)))
    for text in TEXTS:
        found = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
        assert [text[a:b] for _, (a, b) in found] == cuts(name, text)
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
        plain = tokenizer.backend_tokenizer.normalizer is None
        assert not plain or tokenizer.decode(ids) == text


LLAMA3 = (  # as its tokenizer.json has it
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


@pytest.mark.parametrize("text", TEXTS)
def test_words_are_cut_as_the_models_own_tokenizers_cut_them(text: str) -> None:
    assert cuts("llama-bpe", text) == [match.group() for match in regex.finditer(LLAMA3, text)]
    own = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
    assert cuts("gpt-2", text) == [text[a:b] for _, (a, b) in own]


def test_every_end_token_ends(home: Path, tmp_path: Path) -> None:
    what = corpus.contents("llama", corpus.tiny("llama"))
    tokens = what.keys["tokenizer.ggml.tokens"]
    tokens[60:63] = ["</s>", "<|eot_id|>", "<end_of_turn>"]
    what.keys["tokenizer.ggml.eot_token_id"] = 3
    what.keys["tokenizer.ggml.eom_token_id"] = 50
    path = corpus.save(tmp_path / "tiny.gguf", what)
    for packed in (False, True):
        loaded = load_model(path, packed=packed)
        # eos, eot, eom, and what is called so; </s> is plain text here
        assert end_ids(loaded.model) == {2, 3, 50, 0, 61, 62}
        assert loaded.tokenizer is not None
        assert loaded.tokenizer.decode([61, 34, 62], skip_special_tokens=True) == tokens[34]


def test_beginnings_and_ends_are_added_as_the_file_says(home: Path, tmp_path: Path) -> None:
    for begins, ends, want in ((None, None, [1, 40]), (False, True, [40, 2]), (True, True, [1, 40, 2])):
        keys = corpus.byte_keys("llama-bpe")
        del keys["tokenizer.ggml.add_bos_token"]
        keys |= {} if begins is None else {"tokenizer.ggml.add_bos_token": begins, "tokenizer.ggml.add_eos_token": ends}
        tokenizer = build_tokenizer(vocabulary(tmp_path, keys))
        assert tokenizer(corpus.byte_tokens()[40]).input_ids == want


def test_named_templates_are_kept(home: Path, tmp_path: Path) -> None:
    what = corpus.contents("llama", corpus.tiny("llama"))
    said = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
    what.keys["tokenizer.chat_template"] = said
    what.keys["tokenizer.chat_template.tool_use"] = "tools: {{ tools }}"
    what.keys["tokenizer.chat_templates"] = ["tool_use"]
    tokenizer: Any = load_model(corpus.save(tmp_path / "tiny.gguf", what)).tokenizer
    turn = [{"role": "user", "content": "ab"}]
    assert tokenizer.apply_chat_template(turn, tokenize=False) == "<|im_start|>ab<|im_end|>"
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    assert tokenizer.apply_chat_template(turn, tools=tools, tokenize=False).startswith("tools: [")
