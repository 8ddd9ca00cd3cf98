"""tree: every leaf is a plain chain of the model, prefixes are stored once, and the sampler costs what it should."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

import local_backend
import toy_engine
from kvorum import Budget, Engine, Run, program
from kvorum.errors import BadRequest, UnknownName
from kvorum.harness.tools.tool import tool
from kvorum.programs.tree import export as out
from kvorum.programs.tree.branch import RolloutSettings, entropy, looping
from kvorum.programs.tree.grow import Growth
from kvorum.programs.tree.methods import step_points, token_points
from kvorum.programs.tree.tree import expected_cost, tree
from planted_trees import STEPS, WARM, planted


@pytest.fixture(scope="module")
def llama() -> Any:
    return toy_engine.model()


@pytest.fixture
def exact(llama: Any) -> Engine:
    return Engine(llama, toy_engine.tokenizer(), kv_tokens=8192, page_size=4)


@pytest.fixture
def engine() -> Engine:
    return toy_engine.fake()


PLANS: list[tuple[str, dict[str, Any]]] = [
    ("tree-grpo", {"step": "a"}),
    ("tree-grpo", {"replacement": False, "rounds": 2, "step": "e"}),
    ("treerl", {"trees": 2, "rounds": 2}),
    ("treerl", {"trees": 2, "select": "uniform"}),
    ("treepo", {"segment": 3, "width": 7}),
    ("spo", {"segment": 3, "branching": (2, 3, 2)}),
    ("vineppo", {"copies": 2, "step": "e"}),
]


@pytest.mark.parametrize(("method", "given"), PLANS)
def test_every_leaf_is_a_plain_chain(exact: Engine, method: str, given: dict[str, Any]) -> None:
    """Its log-probabilities are the dense forward's over its own path, for all of its tokens."""
    made, _ = planted(exact, method, **given)
    assert len(made.leaves) > 2
    for row in out.rows(made):
        logits = toy_engine.dense(toy_engine.llama(exact), row["ids"], toy_engine.causal(len(row["ids"])))
        chances = torch.log_softmax(logits, -1)
        expected = [float(chances[at - 1, token]) for at, token in enumerate(row["ids"]) if row["mask"][at]]
        sampled = [chance for chance, flag in zip(row["logprobs"], row["mask"], strict=True) if flag]
        assert sampled == pytest.approx(expected, abs=1e-5)  # a pick's log-probability is in float32


@pytest.mark.parametrize(("method", "given"), PLANS)
def test_lanes_change_no_token(engine: Engine, method: str, given: dict[str, Any]) -> None:
    one, _ = planted(engine, method, lanes=1, **dict(given))
    many, _ = planted(engine, method, lanes=9, **dict(given))
    assert [(node.parent, node.ids) for node in one.nodes] == [(node.parent, node.ids) for node in many.nodes]


@pytest.mark.parametrize(("method", "given"), PLANS)
def test_a_packed_tree_gives_what_its_rows_give(exact: Engine, method: str, given: dict[str, Any]) -> None:
    made, _ = planted(exact, method, **given)
    pack = out.packed(made)
    mask, at = out.tree_mask(pack), pack["positions"]
    distance = torch.where(mask, at[:, None] - at[None, :], -1)
    chances = torch.log_softmax(toy_engine.dense(toy_engine.llama(exact), pack["ids"].tolist(), distance), -1)
    assert len(pack["ids"]) == sum(len(node.ids) for node in made.nodes)
    for i in range(len(at)):
        if pack["loss_mask"][i]:
            before = (mask[i] & (at == at[i] - 1)).nonzero()  # the one token of its path that it follows
            assert len(before) == 1
            assert float(chances[before[0, 0], pack["ids"][i]]) == pytest.approx(float(pack["logprobs"][i]), abs=1e-5)


def test_prefixes_are_shared_without_a_copy(exact: Engine) -> None:
    """A fork takes no page and writes no key; two leaves that share a prefix share its blocks."""

    @program("probe", "forks")
    async def probe(run: Run) -> str:
        g = Growth(run, RolloutSettings(12))
        await g.begin(run.encode("What is it?"))
        await g.advance([first := g.root(0)])
        pool, kv, free = run.engine.pool, local_backend.cache(run.engine), run.engine.pool.free
        state = [(t.data_ptr(), t._version) for t in (*kv.keys, *kv.values)]
        forks = [g.fork(first, at) for at in range(len(g.prompt), first.end + 1)]
        assert [(t.data_ptr(), t._version) for t in (*kv.keys, *kv.values)] == state
        assert pool.free == free
        for fork in forks:
            assert fork.worker.view.blocks[:-1] == first.worker.view.blocks[: len(fork.worker.view.blocks) - 1]
            assert (
                fork.worker.view.ids + fork.worker.pending
                == [*g.prompt, *first.path(lambda one: one.ids)][: fork.start]
            )
        again = g.fork(g.fork(forks[5], forks[5].start), forks[3].start)
        assert again.owner(again.start) is forks[3].owner(forks[3].start)
        return "done"

    assert exact.run(probe, "p", sampling=WARM).answer == "done"


# -- what it costs ----------------------------------------------------------------------------------------------


def test_the_published_budget_formula() -> None:
    """M (B + L N B / 2) for M (L N + 1) leaves: 4 chains and 6 leaves at the released settings."""
    assert expected_cost(2, 2, 1) == 4
    assert [(1 + n) / expected_cost(1, n, 1) for n in (2, 6)] == [1.5, 1.75]


@pytest.mark.parametrize(("steps", "chains"), [(2, 5.0), (3, 4.66), (4, 4.52), (6, 4.34), (10, 4.18)])
def test_the_true_cost_of_the_published_sampler(steps: int, chains: float) -> None:
    """The closed form against the simulation of ``research`` and against this sampler's own draws."""
    assert expected_cost(2, 2, 1, steps) == pytest.approx(chains, abs=0.035)


def test_the_sampler_costs_what_the_closed_form_says(engine: Engine) -> None:
    """Four steps a chain, scripted; over many seeds the sampled tokens come to the closed form, not to the formula."""
    script = "a\n\n" * 3 + "b\n"  # the end token makes the last step as long as the others
    totals = []
    for seed in range(16):
        made, result = planted(engine, "tree-grpo", seed=seed, tokens=99, script=script, step="\n\n", lanes=8)
        chain = sum(sum(made.nodes[at].sampled) for at in made.path(made.leaves[0]))
        assert len(made.leaves) == 6
        totals.append(made.sampled / chain)
        unfed = len(made.leaves)  # each leaf's last token
        assert result.ledger.decoded == made.sampled - unfed
        assert made.unshared == 6 * chain
    mean = sum(totals) / len(totals)
    assert mean == pytest.approx(expected_cost(2, 2, 1, 4), abs=0.2)
    assert mean > expected_cost(2, 2, 1) + 0.2


def test_without_replacement_no_point_is_drawn_twice(engine: Engine) -> None:
    script = "a\n\n" * 5 + "b\n"
    for seed in range(5):
        made, _ = planted(
            engine, "tree-grpo", seed=seed, picks=6, replacement=False, trees=1, script=script, tokens=99, step="\n\n"
        )
        forks = [
            node.start for at, node in enumerate(made.nodes) if at and made.nodes[node.parent].branch != node.branch
        ]
        assert sorted(forks) == sorted({node.start for node in made.nodes[1:]} | {made.nodes[1].start})[:0] + sorted(
            forks
        )
        assert len(made.leaves) == 7
        assert len(set(forks[1:])) == 6


# -- where it branches ------------------------------------------------------------------------------------------


def test_spo_branches_at_every_level(engine: Engine) -> None:
    made, _ = planted(engine, "spo", segment=4, branching=(2, 3, 2), script="abcdefghijklmnop", step="#")
    assert len(made.leaves) == 12
    starts = {node.start - made.nodes[1].start for node in made.nodes[1:]}
    assert starts == {0, 4, 8}


def test_treepo_keeps_to_its_width_and_refills(engine: Engine) -> None:
    made, _ = planted(engine, "treepo", segment=3, width=9, trees=2)
    assert len(made.leaves) == 9
    early, _ = planted(engine, "treepo", segment=3, width=9, trees=2, script="ab")
    assert len(early.leaves) == 9  # all end in the first segment: the rest is cut from finished ones


def test_treerl_forks_at_the_least_likely_tokens(engine: Engine) -> None:
    @program("probe", "forks")
    async def probe(run: Run) -> str:
        g = Growth(run, RolloutSettings(12))
        await g.begin(run.encode("What is it?"))
        await g.advance([chain := g.root(0)])
        points = token_points(g, 0)
        assert [at for _, at in points] == list(range(chain.start, chain.end))
        worst = sorted(range(len(chain.ids)), key=lambda at: chain.logprobs[at])[:2]
        return json.dumps([chain.start + at for at in worst])

    expected = json.loads(engine.run(probe, "p", sampling=WARM).answer or "[]")
    made, _ = planted(engine, "treerl", trees=1, tokens=12, step="#")
    first = made.nodes[1].branch
    assert sorted({node.start for node in made.nodes[1:] if node.branch != first}) == sorted(expected)
    assert len(made.leaves) == 1 + 2 * 2


def test_steps_are_candidates_when_something_follows(engine: Engine) -> None:
    @program("probe", "steps")
    async def probe(run: Run) -> str:
        g = Growth(run, RolloutSettings(99, script=STEPS))
        await g.begin(run.encode("p"))
        await g.advance([g.root(0)])
        return json.dumps([at - len(g.prompt) for _, at in step_points(g, 0)])

    assert json.loads(engine.run(probe, "p").answer or "") == [0, 4, 8, 12]


def search(query: str) -> str:
    """finds things"""
    if query == "!":
        raise RuntimeError("nothing")
    return f"[{query}]" * 3


@pytest.mark.parametrize("select", ["uniform", "entropy"])
def test_arpo_branches_behind_tool_results(engine: Engine, select: str) -> None:
    script = "x<search>q</search>" + "\n<result>[q][q][q]</result>\n\n" + "then some more text to the end"
    made, result = planted(
        engine, "arpo", trees=3, width=6, select=select, script=script, tools=[tool(search)], tokens=99
    )
    assert len(made.leaves) == 6
    calls = [event for event in result.trace.events if event["event"] == "note" and event["kind"] == "tool"]
    assert {event["status"] for event in calls} == {"ok"}
    joints = [
        node
        for at, node in enumerate(made.nodes)
        if at and made.nodes[node.parent].branch != node.branch and node.parent
    ]
    for node in joints:
        assert engine.tokenizer.decode(made.nodes[node.parent].ids).endswith("</result>\n\n")
    row = out.rows(made)[0]
    inserted = [
        token for token, flag in zip(row["ids"][row["prompt"] :], row["mask"][row["prompt"] :], strict=True) if not flag
    ]
    assert engine.tokenizer.decode(inserted) == "\n<result>[q][q][q]</result>\n\n"
    assert result.ledger.prefill >= len(inserted) * 3


def spell(query: str) -> str:
    """spells the end token"""
    return "<end>"


def test_a_tools_words_are_data(engine: Engine) -> None:
    """What a result spells like a special token is plain text in the cache, and ends nothing."""
    script = "<spell>q</spell>" + "\n<result><end></result>\n\n" + "on"
    made, _ = planted(engine, "tree-grpo", trees=1, picks=1, script=script, tools=[tool(spell)], tokens=99)
    row = out.rows(made)[0]
    given = [token for token, flag in zip(row["ids"], row["mask"], strict=True) if not flag][row["prompt"] :]
    assert engine.tokenizer.eos_token_id not in given
    assert engine.tokenizer.decode(given) == "\n<result><end></result>\n\n"


def test_a_tool_that_fails_or_is_called_too_often(engine: Engine) -> None:
    script = "<search>!</search>" * 5
    made, result = planted(engine, "tree-grpo", trees=1, picks=1, script=script, tools=[tool(search)], tokens=400)
    calls = [event["status"] for event in result.trace.events if event["event"] == "note" and event["kind"] == "tool"]
    assert set(calls) == {"error"}
    assert len(calls) <= 2 * 3
    assert made.leaves


# -- budgets and malformed input --------------------------------------------------------------------------------


@pytest.mark.parametrize("ticks", [1, 9, 24])
@pytest.mark.parametrize(("method", "given"), PLANS)
def test_budgets_hold_wherever_they_end(engine: Engine, method: str, given: dict[str, Any], ticks: int) -> None:
    made, result = planted(engine, method, budget=Budget(ticks=ticks), lanes=3, **dict(given))
    assert result.ledger.ticks <= ticks
    made.estimate("tree-grpo")
    made.estimate("treerl")
    out.packed(made)
    assert all(made.nodes[leaf].finish in ("end", "length", "loop", "spent") for leaf in made.leaves)


def test_no_leaf_at_all(engine: Engine) -> None:
    result = engine.run(tree, "p", budget=Budget(ticks=1))
    assert (result.answer, result.outcome) == (None, "none")


def test_a_text_that_goes_round_in_circles_ends(engine: Engine) -> None:
    made, _ = planted(
        engine, "treepo", width=1, trees=1, segment=999, script="round and round and round we go " * 40, tokens=2000
    )
    assert made.nodes[made.leaves[0]].finish == "loop"
    assert looping("ab" * 128)
    assert not looping("ab" * 100)


def test_entropy_is_that_of_the_ten_likeliest() -> None:
    logits = torch.log(torch.tensor([0.5, 0.25, 0.125, 0.125]))
    assert entropy(logits) == pytest.approx(
        1.75 * torch.log(torch.tensor(2.0)).item() / torch.log(torch.tensor(4.0)).item()
    )
    assert entropy(torch.zeros(100)) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"method": "x"}, UnknownName),
        ({"segment": 4}, BadRequest),
        ({"trees": 0}, BadRequest),
        ({"form": "x"}, UnknownName),
        ({"select": "x"}, UnknownName),
        ({"advantage": "x"}, UnknownName),
        ({"rounds": -1}, BadRequest),
    ],
)
def test_wrong_parameters_say_what_is_known(engine: Engine, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        engine.run(tree, "p", **options)


def test_marks_are_those_of_the_path(exact: Engine) -> None:
    """A step that the parent's parent finished behind the fork is no step of the child."""

    @program("probe", "forks")
    async def probe(run: Run) -> str:
        g = Growth(run, RolloutSettings(99, script=STEPS))
        await g.begin(run.encode("p"))
        await g.advance([chain := g.root(0)])
        first = len(g.prompt)
        assert [at - first for at in chain.marks("steps")] == [4, 8, 12]
        await g.advance([low := g.fork(chain, first + 5)])
        assert [at - first for at in g.fork(low, first + 13).marks("steps")] == [8, 12, 4]
        inner = g.fork(low, first + 7)
        assert [at - first for at in inner.marks("steps")] == [4]
        assert (inner.text, inner.begun) == (STEPS[:7], 4)
        return "done"

    assert exact.run(probe, "p").answer == "done"
