"""The heavy clients, unchanged, against `kvorum serve`: lm-eval (log-likelihoods and generation) and inspect-ai.

Needs the extra ``clients``. Slow: lm-eval alone takes half a minute to start.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from kvorum import Engine, Row, View
from serving import Process
from tiny_folder import tiny_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("lm_eval") is None or find_spec("inspect_ai") is None, reason="needs kvorum[clients]"),
]

QUESTIONS = [("The sky is", [" blue", " loud"], 0), ("Two and two are", [" nine", " four"], 1), ("abc", ["d", "x"], 0)]

CHOICE_TASK = """
task: choices
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{gold}}"
target_delimiter: ""
metric_list: [{metric: acc}]
"""
CHAT_TASK = """
task: sayings
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[gold]}}"
generation_kwargs: {until: ["QQ"], max_gen_toks: 8, do_sample: false}
metric_list: [{metric: exact_match}]
"""
INSPECT_TASK = """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, system_message

@task
def rivers():
    samples = [Sample(input=f"Name river {n}.", target="e") for n in range(4)]
    return Task(dataset=samples, solver=[system_message("Be brief."), generate()], scorer=includes())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("clients") / "tiny")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Process]:
    up = Process(folder, folder.parent / "store")
    yield up
    up.end()


def offline() -> dict[str, str]:
    return os.environ | {
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_OFFLINE": "1",
        "OPENAI_API_KEY": "none",
        "TOKENIZERS_PARALLELISM": "false",
    }


def lm_eval(folder: Path, task: str, text: str, *model: str) -> dict[str, object]:
    """Run lm-eval's command on a task of ours; its results."""
    tasks = folder.parent / f"tasks-{task}"
    tasks.mkdir()
    data = tasks / "data.jsonl"
    lines = [json.dumps({"question": q, "choices": c, "gold": g}) for q, c, g in QUESTIONS]
    data.write_text("\n".join(lines))
    (tasks / f"{task}.yaml").write_text(text.replace("DATA", str(data)))
    words = [sys.executable, "-m", "lm_eval", *model, "--tasks", task, "--include_path", str(tasks)]
    done = subprocess.run(
        [*words, "--output_path", str(tasks / "out"), "--log_samples"], capture_output=True, text=True, env=offline()
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (samples,) = (tasks / "out").rglob("samples_*.jsonl")
    return {"samples": [json.loads(line) for line in samples.read_text().splitlines()]}


def test_lm_eval_loglikelihood(server: Process, folder: Path) -> None:
    """lm-eval's scores are the engine's own."""
    where = f"model=tiny,base_url={server.up.url}/v1/completions,tokenizer={folder},num_concurrent=4,max_length=2048"
    found = lm_eval(folder, "choices", CHOICE_TASK, "--model", "local-completions", "--model_args", where)
    engine = Engine.load(folder)
    for sample in found["samples"]:  # type: ignore[attr-defined]
        question, choices, _ = QUESTIONS[sample["doc_id"]]
        for choice, (reply,) in zip(choices, sample["resps"], strict=True):
            prompt = engine.tokenizer(question).input_ids
            ids = engine.tokenizer(question + choice).input_ids
            every = engine.forward([Row(View(engine.block()), ids=ids)], every=True).every
            assert every is not None
            logits = every[0]
            own = sum(float(logits[at - 1].log_softmax(0)[ids[at]]) for at in range(len(prompt), len(ids)))
            assert float(reply[0]) == pytest.approx(own, abs=1e-3)


def test_lm_eval_chat(server: Process, folder: Path) -> None:
    where = f"model=tiny,base_url={server.up.url}/v1/chat/completions,num_concurrent=2"
    found = lm_eval(
        folder,
        "sayings",
        CHAT_TASK,
        "--model",
        "local-chat-completions",
        "--model_args",
        where,
        "--apply_chat_template",
    )
    assert len(found["samples"]) == len(QUESTIONS)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["tiny", "tiny:vote-2"])
def test_inspect_ai(server: Process, folder: Path, name: str, tmp_path: Path) -> None:
    (tmp_path / "rivers.py").write_text(INSPECT_TASK)
    words = [sys.executable, "-m", "inspect_ai", "eval", "rivers.py", "--model", f"openai-api/kvorum/{name}"]
    where = {"KVORUM_BASE_URL": f"{server.up.url}/v1", "KVORUM_API_KEY": "none"}
    done = subprocess.run(
        [*words, "--display", "plain", "--log-format", "json", "--max-tokens", "16", "--log-dir", "logs"],
        capture_output=True,
        text=True,
        env=offline() | where,
        cwd=tmp_path,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    (log,) = (tmp_path / "logs").glob("*.json")
    told = json.loads(log.read_text())
    assert told["status"] == "success"
    assert len(told["samples"]) == 4
