"""Grammars of texts: what a matcher lets through, how ``decode`` and a run's workers follow one, and who is disturbed.

Covers rows with and without a grammar in one tick, one grammar fed in any parts, end tokens, forced tokens against
picked ones, going on and beginning anew, resuming and replaying, and failures that stay with their row. On the toy
model and the fake backend. Not covered: which schemas are right, and limits (``test_grammar_schemas``).
P1 to P20 are the rows of public bug reports on grammars that each test repeats.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

import toy_engine
from grammar_texts import END, FITS, KINDS, encode, take, text_of
from kvorum import Engine, Grammar, Row, Sampling, Token, View
from kvorum.backends.fake import FakeBackend
from kvorum.engine.grammars import Grammars
from kvorum.errors import BadRequest, GrammarError
from kvorum.sampling.matcher import Matcher, begin_masks
from kvorum.sampling.sampler import draw_all
from kvorum.sampling.sampling import Draw, Pick, unpacked


@pytest.fixture(scope="module", params=["fake", "model"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return toy_engine.fake() if request.param == "fake" else toy_engine.engine()


@pytest.fixture(scope="module")
def words() -> Grammars:
    return toy_engine.fake().grammars


def allowed(matcher: Matcher, vocab: int = END + 1) -> set[int]:
    return {int(token) for token in np.flatnonzero(unpacked(matcher.bits(), vocab))}


def accepts(words: Grammars, grammar: Grammar, text: str) -> bool:
    """Whether a text is one of the grammar's, and every one of its tokens was allowed where it came."""
    matcher = words.matcher(grammar)
    for token in encode(text):
        may = token in allowed(matcher)
        try:
            matcher.take([token])
        except GrammarError:
            assert not may
            return False
        assert may
    return matcher.may_end


# -- one text -------------------------------------------------------------------------------------------------


@pytest.mark.forward
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_decoded_is_the_grammars(engine: Engine, kind: str) -> None:
    for stream in range(4):
        tokens = asyncio.run(take(engine, KINDS[kind], stream=stream, max_tokens=200))
        text = text_of(tokens)
        if kind == "choice" and tokens[-1].finish == "end":  # where one option goes on from another the text may end
            assert tokens[-1].id == END
        else:
            assert tokens[-1].finish == "grammar", text
        if kind in FITS:
            assert FITS[kind].fullmatch(text), text
        else:
            found = json.loads(text)
            assert list(found) == ["name", "age"]
            assert (", " in text) == (kind == "json")


@pytest.mark.forward
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_forced_tokens_are_those_that_are_picked_one_by_one(engine: Engine, kind: str, temperature: float) -> None:
    """The same ids, in fewer ticks, and all of them in the block."""
    for stream in range(3):
        engine.ledger.ticks = 0
        slow = asyncio.run(take(engine, KINDS[kind], stream=stream, temperature=temperature))
        ticks, engine.ledger.ticks = engine.ledger.ticks, 0
        fast = asyncio.run(take(engine, KINDS[kind], stream=stream, temperature=temperature, forced=True))
        assert [(token.id, token.text, token.finish) for token in fast] == [(t.id, t.text, t.finish) for t in slow]
        fed = [token for token in fast if token.logprob != token.logprob]
        assert engine.ledger.ticks == ticks - len(fed)
        if kind == "json":
            assert len(fed) > 12


@pytest.mark.forward
def test_a_text_goes_on_where_it_was(engine: Engine) -> None:
    """P19: a row that is put aside and taken up again; its matcher is one that was fed the row's ids."""
    whole = asyncio.run(take(engine, KINDS["json"], stream=3))
    for cut in range(1, len(whole) - 1):
        view = View(engine.block())
        engine.forward([Row(view, ids=encode("Say: ") + [int(token) for token in whole[:cut]])])

        async def rest(view: View = view, cut: int = cut) -> list[Token]:
            sampling = Sampling(1.0, grammar=KINDS["json"])
            begun = [int(token) for token in whole[:cut]]
            return [t async for t in engine.decode(view, sampling=sampling, stream=3, begun=begun, max_tokens=60)]

        assert asyncio.run(rest()) == whole[cut:]


def test_feeding_in_parts_is_feeding_at_once(words: Grammars) -> None:
    """P4: for every split, the end token included; what is refused is refused in both."""
    dice = random.Random(1)
    cases = [(Grammar.regex("k"), [*encode("k"), END]), (Grammar.regex("k"), [*encode("kk"), END])]
    cases += [(KINDS["json"], [*encode('{"name": "ab", "age": 7}'), END]), (KINDS["json"], encode('{"name"}'))]
    for grammar, ids in cases:
        for split in [*range(len(ids) + 1), dice.randrange(len(ids))]:
            whole, parts = words.matcher(grammar), words.matcher(grammar)
            told = []
            for matcher, given in ((whole, [ids]), (parts, [ids[:split], ids[split:]])):
                try:
                    for part in given:
                        matcher.take(part)
                    told.append("taken")
                except GrammarError as error:
                    told.append(str(error))
            assert told[0] == told[1]
            assert (whole.ended, whole.complete, whole.may_end) == (parts.ended, parts.complete, parts.may_end)
            assert allowed(whole) == allowed(parts)


def test_a_finished_text_takes_nothing_more_and_another_may_begin(words: Grammars) -> None:
    """P5: no token of any kind reaches the library's matcher behind the end; begun anew it works."""
    matcher = words.matcher(Grammar.json({"enum": ["y"]}))
    for _ in range(2):
        matcher.take([*encode('"y"')])
        assert matcher.complete
        assert allowed(matcher) == {END}
        matcher.take([END])
        assert matcher.ended
        assert allowed(matcher) == set()
        assert matcher.forced() == []
        for token in (END, *encode("y")):
            with pytest.raises(GrammarError, match="complete"):
                matcher.take([token])
        matcher.restart()
        assert not matcher.may_end


def test_all_end_tokens_exactly_where_the_text_may_end() -> None:
    """P6, P7: of two end ids, one of which the vocabulary spells as text; mask and acceptance agree for every id."""
    other = encode("~")[0]
    tokenizer: Any = toy_engine.tokenizer()
    words = Grammars(tokenizer, END + 1, frozenset([END, other]))
    grammar = Grammar.json({"type": "object", "properties": {"t": {"type": "string"}}, "required": ["t"]})
    text = encode('{"t": "ab"}')
    for at in range(len(text) + 1):
        matcher = words.matcher(grammar)
        matcher.take(text[:at])
        may = allowed(matcher)
        assert {END, other} & may == ({END, other} if at == len(text) else set())
        for token in range(END + 1):
            tried = words.matcher(grammar)
            tried.take(text[:at])
            try:
                tried.take([token])
            except GrammarError:
                assert token not in may
            else:  # of what is forced only one spelling is picked, though others are taken
                assert token in may or (may == set(matcher.forced()[:1]) and token not in (END, other))


def test_a_model_without_an_end_token_or_a_fast_tokenizer_says_so() -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=toy_engine.tokenizer().backend_tokenizer)
    for engine in (Engine(FakeBackend(END + 1), tokenizer), Engine(FakeBackend(END + 1, ends=[END]), _Slow())):
        with pytest.raises(BadRequest, match=r"needs a (model with an end|fast tokenizer)"):
            asyncio.run(take(engine, KINDS["regex"]))


class _Slow:
    eos_token_id = END


@pytest.mark.parametrize("special", [False, True])
def test_a_grammar_begins_behind_the_tag_that_ends_thinking(special: bool) -> None:
    """P17: the template has opened the tag; what is thought is free, the JSON stands behind it. Two kinds of tags."""
    tokenizer: Any = toy_engine.tokenizer()
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": ["</think>"]})
    words = Grammars(tokenizer, len(tokenizer) + 6, frozenset([END]))
    grammar = Grammar.json({"const": 7}).after("</think>")
    matcher = words.matcher(grammar)
    thought = tokenizer('is it {"7"}? <think> yes</think>', add_special_tokens=False)["input_ids"]
    assert END not in allowed(matcher)
    for token in thought:
        assert token in allowed(matcher, len(tokenizer))
        matcher.take([token])
    blank = encode("\n\n")
    assert allowed(matcher) == {*encode("7"), *encode("\n\r\t ")}
    matcher.take([*blank, *encode("7")])
    assert matcher.complete
    at_once = words.matcher(Grammar.json({"const": 7}))
    assert allowed(at_once) == set(encode("7"))


@pytest.mark.forward
def test_a_stop_string_ends_a_text_under_a_grammar(engine: Engine) -> None:
    tokens = asyncio.run(take(engine, KINDS["json"], stop=['", "age'], temperature=0.0))
    assert tokens[-1].finish == "stop"
    assert text_of(tokens).startswith('{"name": "')
    assert '", "' not in text_of(tokens)


# -- several rows ---------------------------------------------------------------------------------------------


@pytest.mark.forward
@pytest.mark.parametrize("free", [0, 1, 2])
@pytest.mark.parametrize("forced", [False, True])
def test_a_free_row_is_as_if_alone(engine: Engine, free: int, forced: bool) -> None:
    """P1: the row without a grammar first, in the middle and last; each row as alone, tokens and ticks shared."""
    grammars: list[Grammar | None] = [Grammar.json({"const": 7}), Grammar.regex("[ab]{4}")]
    grammars.insert(free, None)

    async def together() -> list[list[Token]]:
        rows = (
            take(engine, g, stream=at, max_tokens=12, temperature=0.0, forced=forced) for at, g in enumerate(grammars)
        )
        return await asyncio.gather(*rows)

    alone = [asyncio.run(take(engine, g, stream=at, max_tokens=12, temperature=0.0)) for at, g in enumerate(grammars)]
    engine.ledger.ticks = 0
    assert asyncio.run(together()) == alone
    assert 13 <= engine.ledger.ticks <= 13 + engine.speculates, "a row that is foreseen may be a tick ahead"
    texts = [text_of(tokens) for tokens in alone]
    del texts[free]
    assert texts[0] == "7"
    assert re.fullmatch("[ab]{4}", texts[1])


def test_ids_past_the_tokenizer_are_never_picked() -> None:
    """P3: 40 columns of logits behind the tokenizer's ids; two rows under one schema, each the same alone."""
    engine = Engine(FakeBackend(END + 41, ends=[END]), toy_engine.tokenizer())

    async def both() -> list[list[Token]]:
        return await asyncio.gather(*(take(engine, KINDS["json"], stream=at) for at in range(2)))

    together = asyncio.run(both())
    assert together == [asyncio.run(take(engine, KINDS["json"], stream=at)) for at in range(2)]
    assert max(map(max, together)) <= END
    assert max(allowed(engine.grammars.matcher(Grammar.regex("(?s:.*)")), END + 41)) == END


def test_a_row_with_a_grammar_and_no_mask_is_an_error_of_that_row() -> None:
    """P2: never decoded freely; the others are drawn."""
    sampling = Sampling(grammar=KINDS["regex"])
    logits = torch.randn(3, 300)
    found = draw_all(logits, [Draw(Sampling(), 0, 0, 0), Draw(sampling, 0, 0, 0), Draw(Sampling(), 0, 0, 0)])
    assert isinstance(found[1], BadRequest)
    assert "grammar" in str(found[1])
    assert [one is not None and not isinstance(one, BadRequest) for one in found] == [True, False, True]


def test_a_forbidden_token_ends_its_row_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """P20: a sampler that once returns an id that the grammar does not have there."""
    engine = toy_engine.fake()
    alone = asyncio.run(take(engine, None, stream=1, max_tokens=9))
    wrong, inner = encode("?")[0], engine.backend.forward

    def forward(work: Any) -> Any:
        done = inner(work)
        asked = work.draws()
        done.picks = [
            pick if draw is None or draw.sampling.grammar is None else Pick(wrong, 0.0)
            for pick, draw in zip(done.picks, asked, strict=True)
        ]
        return done

    monkeypatch.setattr(engine.backend, "forward", forward)

    async def both() -> Any:
        rows = take(engine, KINDS["regex"]), take(engine, None, stream=1, max_tokens=9)
        return await asyncio.gather(*rows, return_exceptions=True)

    failed, free = asyncio.run(both())
    assert isinstance(failed, GrammarError)
    assert free == alone


def test_masks_of_a_tick_are_those_of_each_row(words: Grammars) -> None:
    """Made together and in parallel, and one by one; of ended texts too."""
    matchers = [words.matcher(grammar) for grammar in KINDS.values()]
    ended = words.matcher(KINDS["regex"])
    ended.take([*encode("abab"), END])
    matchers.insert(2, ended)
    for found, matcher in zip(begin_masks(matchers)(), matchers, strict=True):
        assert isinstance(found, np.ndarray)
        assert np.array_equal(found, matcher.bits())


@pytest.mark.forward
def test_what_cannot_be_followed_further_is_its_row_s_error() -> None:
    """A grammar that only shows its size in the middle of the text, beside a free row."""
    engine = toy_engine.fake()
    bomb = Grammar.regex("a((a?){900}a{900}){3}b")

    async def both() -> Any:
        return await asyncio.gather(take(engine, bomb), take(engine, None, max_tokens=5), return_exceptions=True)

    failed, free = asyncio.run(both())
    assert isinstance(failed, GrammarError | BadRequest)
    assert "grammar" in str(failed)
    assert len(free) == 5


def test_every_other_backend_may_answer_with_plain_data(words: Grammars) -> None:
    """What a draw says of a grammar is bits, that is what goes over a wire."""
    bits = words.matcher(KINDS["regex"]).bits()
    assert bits.dtype == np.uint8
    assert bits.nbytes < 64
    again = np.frombuffer(bits.tobytes(), dtype=np.uint8)
    assert np.array_equal(unpacked(again, END + 1), unpacked(bits, END + 1))
