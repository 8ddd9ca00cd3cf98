"""What is refused before any worker of vLLM's is started, and what `kvorum` knows without vLLM.

Versions, options that do not fit together, options on the wrong backend, the command's options, and that importing
kvorum imports no vLLM. Not covered: what is refused once the model is there (`tests/vllm`).
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from kvorum import Engine
from kvorum.backends.vllm.environment import environment
from kvorum.backends.vllm.spread import Spread
from kvorum.backends.vllm.versions import DISTRIBUTIONS, NEWEST, OLDEST, check_version
from kvorum.cli.arguments import is_exact, load_options
from kvorum.cli.parser import parse
from kvorum.errors import BadRequest, MissingExtra, UnknownName


def test_versions_in_the_tested_range_are_taken() -> None:
    assert check_version("0.32.0") == "0.32.0"
    assert check_version("0.32.1.dev3+cpu") == "0.32.1.dev3+cpu"
    assert check_version("0.40.0", untested=True) == "0.40.0"


def test_another_version_is_refused_as_a_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the model is looked for, and before vLLM is imported."""
    monkeypatch.setattr("kvorum.backends.vllm.load.installed", lambda: "0.33.0")
    with pytest.raises(BadRequest, match=r"vLLM 0\.33\.0 is installed, and kvorum was tested with 0\.32"):
        Engine.load("no-such-model", backend="vllm")
    with pytest.raises(UnknownName, match="no-such-model"):
        Engine.load("no-such-model", backend="vllm", untested_vllm=True)


@pytest.mark.parametrize("found", ["0.31.9", "0.33.0", "1.0", "somebody's"])
def test_another_version_is_refused_in_one_sentence(found: str) -> None:
    with pytest.raises(
        BadRequest, match=r"is installed, and kvorum was tested with 0\.32; install vllm==0\.32\.0"
    ) as told:
        check_version(found)
    assert str(told.value).startswith(f"vLLM {found} ")


def test_what_the_extras_install_is_the_tested_range() -> None:
    """Both ends of it, under either name of vLLM."""
    told = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    extras = told["project"]["optional-dependencies"]
    for name in DISTRIBUTIONS:
        (one,) = (Requirement(text) for text in extras[name])
        assert one.name == name
        assert {OLDEST, NEWEST} <= set(one.specifier.filter([OLDEST, NEWEST]))
        assert not one.specifier.contains("0.31.9")
        assert not one.specifier.contains("0.33.0")


def test_without_vllm_the_sentence_says_what_to_install() -> None:
    with pytest.raises(MissingExtra, match=r"not installed here; .* pip install 'kvorum\[vllm\]' \(for CPUs"):
        check_version(None, untested=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tensor_parallel": 0}, "tensor_parallel=0 must be"),
        ({"pipeline_parallel": -1}, "pipeline_parallel=-1 must be"),
        ({"executor": "uni", "tensor_parallel": 2}, "'uni' is one process, and 2 are asked for"),
        ({"patience": 0.0}, "above 0 seconds"),
        ({"vllm": {"tensor_parallel_size": 2}}, "give tensor_parallel"),
        ({"vllm": {"worker_cls": "mine"}}, "decided by kvorum"),
        ({"vllm": {"speculative_config": {"n": 3}}}, "Speculative decoding"),
        ({"vllm": {"data_parallel_size": 2}}, "Data parallelism"),
        ({"vllm": {"nnodes": 2}}, "give nodes"),
        ({"tensor_parallel": 3, "nodes": 2}, "3 processes .* evenly over nodes=2"),
        ({"tensor_parallel": 2, "nodes": 2, "executor": "ray"}, "for executor='mp'"),
    ],
)
def test_what_does_not_fit_together_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        Spread.of(**options)  # type: ignore[arg-type]


def test_near_names_of_executors_and_backends_are_told() -> None:
    with pytest.raises(UnknownName, match="mp"):
        Spread.of(executor="np")
    with pytest.raises(UnknownName, match="vllm"):
        Engine.load("anything", backend="vlm")


def test_processes_need_the_backend_that_has_some() -> None:
    with pytest.raises(BadRequest, match="tensor_parallel: backend='local' is one process"):
        Engine.load("anything", tensor_parallel=2)
    with pytest.raises(BadRequest, match="takes no quantize='packed'"):
        Engine.load("anything", backend="vllm", quantize="packed")
    with pytest.raises(UnknownName, match="graphs"):
        Engine.load("anything", backend="vllm", runner="lean")


def test_the_environment_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "INFO")
    before = dict(os.environ)
    with environment(Spread(tensor_parallel=2)):
        assert os.environ["VLLM_LOGGING_LEVEL"] == "INFO"
        assert os.environ["VLLM_CPU_OMP_THREADS_BIND"].count("|") == 1
        assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "1"
        assert os.environ["VLLM_HOST_IP"] == "127.0.0.1"
        assert os.environ.get("GLOO_SOCKET_IFNAME", "lo").startswith("lo")
    assert dict(os.environ) == before


@pytest.mark.parametrize("command", ["solve", "ask", "serve"])
def test_the_command_says_how_a_model_is_spread(command: str, tmp_path: Path) -> None:
    words = {"solve": ["Why?"], "ask": [str(tmp_path), "Why?"], "serve": []}[command]
    spread = ["--backend", "vllm", "--tensor-parallel", "2", "--pipeline-parallel", "3", "--patience", "9"]
    found = load_options(parse([command, *words, *spread, "--vllm", "quantization=awq", "--vllm", "max_model_len=64"]))
    assert found["backend"] == "vllm"
    assert (found["tensor_parallel"], found["pipeline_parallel"], found["patience"]) == (2, 3, 9.0)
    assert found["vllm"] == {"quantization": "awq", "max_model_len": 64}
    assert is_exact(parse([command, *words, *spread])), "the default model must fit in memory as it is"
    assert not is_exact(parse([command, *words]))
    plain = load_options(parse([command, *words]))
    assert plain["backend"] == "local"
    assert "tensor_parallel" not in plain
    with pytest.raises(BadRequest, match="takes KEY=VALUE"):
        load_options(parse([command, *words, "--vllm", "quantization"]))


def test_importing_kvorum_imports_no_vllm() -> None:
    code = (
        "import sys, kvorum, kvorum.backends.vllm.backend, kvorum.backends.vllm.load; sys.exit('vllm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
