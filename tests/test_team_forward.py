"""The differentiable forward of whole team traces, against the engine tick by tick, and its gradients.

Covers every layout of hogwild with steps that move, private parts, forgetting and forced answers, on random teams;
random views by hand with gaps, splices, placed spans and ragged rows; families with windows, sinks and soft caps;
gradients against finite differences; what cannot be recorded. Not covered: that the engine itself is right
(test_forward_oracle.py).
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

import families
import toy_engine
from kvorum import Budget, Engine, Gap, Row, Run, Sampling, Span, View, programs
from kvorum.backends.backend import Done, Work
from kvorum.backends.fake import FakeBackend
from kvorum.backends.local.backend import LocalBackend
from kvorum.errors import BadRequest
from kvorum.lab.training.forward import TeamForward
from kvorum.lab.training.recording import Recording
from kvorum.lab.training.team_trace import UNSEEN, TeamTrace
from kvorum.runs.program import Task
from oracle import widen

CLOSE = {torch.float64: 1e-9, torch.float32: 1e-4}


class Watched(Recording):
    """A recording that keeps what the engine computed: logits by the number of the token."""

    def __init__(self, inner: LocalBackend) -> None:
        super().__init__(inner)
        self.wanted: list[Tensor] = []
        self.logits: list[Tensor] = []

    def forward(self, work: Work) -> Done:
        first = len(self._ids)
        done = super().forward(work)
        self.wanted.append(first + work.wanted)
        self.logits.append(done.logits().clone())
        return done

    def difference(self) -> float:
        """The largest difference of any logit from those of the differentiable forward."""
        trace = self.trace()
        assert isinstance(self.inner, LocalBackend)
        forward = TeamForward(self.inner.module(), trace, self.inner.rotaries)
        ids = torch.tensor([trace.ids, trace.ids])  # two teams alike: the batch must not mix them
        with torch.no_grad():
            found = forward(ids, torch.cat(self.wanted))
        assert found[0].std() > 0.1
        torch.testing.assert_close(found[0], found[1])
        return float((found[0] - torch.cat(self.logits)).abs().max())


def local(model: nn.Module) -> LocalBackend:
    return LocalBackend(model, kv_tokens=2048, page_size=4, attention="reference")


def play(backend: Recording, seed: int, **options: Any) -> None:
    """A hogwild run of a drawn size whose workers write random steps, some of which end."""
    draw = random.Random(seed)
    engine = Engine(backend, toy_engine.tokenizer())
    workers = draw.choice((1, 2, 3, 4))
    texts = ["".join(draw.choice(("a", "bc", "x.\n\n", "7?\n\n", " ")) for _ in range(12)) for _ in range(workers)]

    def follow(run: Run) -> None:
        for worker, text in zip(run.workers, texts, strict=True):
            ids = engine.tokenizer(text, add_special_tokens=False)["input_ids"]

            def allow(logits: Tensor, ids: list[int] = ids, written: list[int] = worker.ids) -> Tensor:
                mask = torch.zeros(len(logits), dtype=torch.bool)
                mask[ids[len(written) % len(ids)]] = True
                return mask

            worker.allow = allow

    private = {"Alice": "it is 7."} if draw.random() < 0.5 else {}
    engine.run(
        programs.hogwild,
        Task("Go.", private=private),
        workers=workers,
        budget=Budget(ticks=4 + draw.randint(8, 20)),
        sampling=Sampling(temperature=1.0),
        control=follow,
        final_tokens=3,
        **options,
    )


def test_what_teams_have_in_common_is_computed_once() -> None:
    inner = local(widen(toy_engine.model()))
    backend = Watched(inner)
    play(backend, 1, loops="go_on")
    trace = backend.trace()
    last = torch.arange(len(trace) - 12, len(trace))
    ids = torch.tensor([trace.ids, trace.ids, trace.ids])
    ids[1:, last] = torch.randint(200, (2, 12), generator=torch.Generator().manual_seed(0))
    plain = TeamForward(inner.module(), trace, inner.rotaries)
    once = TeamForward(inner.module(), trace, inner.rotaries, last)
    assert 12 <= int(once.own.sum()) < len(trace)
    sees = torch.from_numpy(trace.distance) >= 0
    assert not sees[~once.own][:, once.own].any()
    assert sees[once.own][:, last].any(1).sum() > 0
    every = torch.arange(len(trace))
    with torch.no_grad():
        torch.testing.assert_close(once(ids, every), plain(ids, every), rtol=1e-9, atol=1e-9)
    ids[1, 0] += 1
    with pytest.raises(BadRequest, match="differ in tokens"):
        once(ids, every)


SOME, MORE = range(5), range(5, 50)


@pytest.mark.parametrize("seeds", [SOME, pytest.param(MORE, marks=pytest.mark.slow)], ids=["some", "more"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("layout", ["combined", "interleaved", "contiguous"])
def test_every_layout_of_hogwild(layout: str, dtype: torch.dtype, seeds: range) -> None:
    inner = local(widen(toy_engine.model(dtype)))
    for seed in seeds:
        options: dict[str, Any] = {"layout": layout, "loops": "go_on"}
        if layout != "contiguous" and seed % 3 == 0:
            options |= {"memory": 1, "forget": "gap" if seed % 2 else "splice"}
        backend = Watched(inner)
        play(backend, seed, **options)
        assert backend.difference() < CLOSE[dtype]


WIDE = local(widen(toy_engine.model()))


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_views_by_hand(data: st.DataObject) -> None:
    """Prompts, forks, hidden blocks, gaps, splices, placed spans, moves; rows of one to three tokens."""
    draw = data.draw
    backend = Watched(WIDE)
    engine = Engine(backend, toy_engine.tokenizer())
    prompt, history, *own = [engine.block() for _ in range(5)]
    engine.forward([Row(View(prompt), ids=[5, 6, 7, 8, 9, 10])])
    views = [View(prompt, history, *[o for o in own if o is not mine], mine) for mine in own]
    views[0] = View(Span(prompt, 0, 4), Gap(draw(st.integers(0, 3))), history, Span(own[1], at=9), own[0])
    for _ in range(draw(st.integers(2, 5))):
        writers = draw(st.lists(st.sampled_from(range(3)), min_size=1, max_size=3, unique=True))
        ids = st.lists(st.integers(0, 99), min_size=1, max_size=3)
        engine.forward([Row(views[at], ids=draw(ids)) for at in writers], every=True)
        step = draw(st.sampled_from(("go on", "move", "splice", "fork")))
        at = draw(st.integers(1, 2))
        if step == "move" and len(own[at]):
            engine.compact([own[at]], history)
            views = [
                view.hide(own[at]) if own[at] in view.blocks and view.own is not own[at] else view for view in views
            ]
            own[at] = engine.block()
            views[at] = View(prompt, history, own[at])
        elif step == "splice":
            views[at] = views[at].splice(1, draw(st.integers(1, 4)))
        elif step == "fork":
            own[at] = engine.block()
            views[at] = views[at].fork(draw(st.integers(1, len(views[at]))), own[at])
    assert backend.difference() < CLOSE[torch.float64]


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gpt-oss"])
def test_windows_caps_and_sinks(family: str) -> None:
    model = families.build(family)
    backend = Watched(local(model))
    engine = Engine(backend)
    prompt, ann, bob = engine.block(), engine.block(), engine.block()
    engine.forward([Row(View(prompt), ids=list(range(3, 12)))])
    for at in range(6):
        engine.forward([Row(View(prompt, bob, ann), ids=[20 + at]), Row(View(prompt, ann, bob), ids=[40 + at])])
    assert backend.difference() < CLOSE[torch.float32]


def test_gradients_are_those_of_finite_differences() -> None:
    model = widen(toy_engine.model())
    recording = Recording(FakeBackend(266, kv_tokens=256))
    engine = Engine(recording)
    prompt, ann, bob = engine.block(), engine.block(), engine.block()
    engine.forward([Row(View(prompt), ids=[1, 2])])
    for at in (3, 4):
        engine.forward([Row(View(prompt, bob, ann), ids=[at]), Row(View(prompt, ann, bob), ids=[at + 2])])
    forward = TeamForward(model, recording.trace())
    ids = torch.tensor([forward.trace.ids])

    class Whole(nn.Module):
        """The model and its forward over the team, so that weights can be given from outside."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self) -> Tensor:
            return forward(ids, torch.tensor([3, 5])).log_softmax(-1)[0, :, 7].sum()

    whole = Whole()
    names = [f"inner.model.layers.{at}.self_attn.{part}_proj.weight" for at in (0, 2) for part in "qkv"]
    given = [whole.get_parameter(name).detach().clone().requires_grad_() for name in names]

    def loss(*weights: Tensor) -> Tensor:
        found: Tensor = functional_call(whole, dict(zip(names, weights, strict=True)), ())
        return found

    assert torch.autograd.gradcheck(loss, tuple(given), fast_mode=True)
    loss(*given).backward()
    assert all(one.grad is not None and one.grad.abs().max() > 1e-6 for one in given)


def test_what_cannot_be_recorded_is_refused() -> None:
    recording = Recording(FakeBackend(64, kv_tokens=256))
    engine = Engine(recording)
    block, own = engine.block(), engine.block()
    engine.forward([Row(View(block), ids=[1, 2, 3])])
    with pytest.raises(BadRequest, match="latent"):
        engine.forward([Row(View(block, own), embeds=torch.zeros(1, 8))])
    with pytest.raises(BadRequest, match="imitated"):
        engine.forward([Row(View(engine.imitate(block, "zeroed"), own), ids=[4])])
    copy = engine.block()
    engine.compact([block], copy)
    engine.forward([Row(View(block, copy, own), ids=[5])])
    with pytest.raises(BadRequest, match="twice"):
        recording.trace()


def test_a_prompt_with_private_parts_is_one_frame_and_a_growing_colleague_another() -> None:
    recording = Recording(FakeBackend(64, kv_tokens=256))
    engine = Engine(recording)
    prompt, secret, ann, bob = [engine.block() for _ in range(4)]
    engine.forward([Row(View(prompt), ids=[1, 2, 3])])
    engine.forward([Row(View(prompt, secret), ids=[4, 5])])
    for at in range(3):
        engine.forward([Row(View(prompt, secret, bob, ann), ids=[at]), Row(View(prompt, ann, bob), ids=[at])])
    trace: TeamTrace = recording.trace()
    assert [frame.keys.tolist() for frame in trace.frames] == [[0, 1, 2, 3, 4], [5, 7, 9], [6, 8, 10]]
    assert trace.distance[6].tolist() == [4, 3, 2, UNSEEN, UNSEEN, 1, 0, *[UNSEEN] * 4]
    with pytest.raises(BadRequest, match="ids must be"):
        TeamForward(toy_engine.model(), trace)(torch.zeros(1, 3, dtype=torch.long), torch.tensor([0]))
