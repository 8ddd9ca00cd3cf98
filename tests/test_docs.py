"""The documents: their Python runs, their links lead somewhere, and every public name is explained.

Covers: all Python blocks of README and of the pages in `PAGES`, each page from top to bottom in one namespace, in an
empty folder; the site with its reference, as `make docs` builds it: a broken link, a public name that nobody explains
and a docstring that cannot be read fail; the table of the catalogue on the page of models, that of a study's keys on
the page of the lab, and that of models and devices on the page of scaling. Not covered: the output that pages show, and
how the site looks.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import griffe
import pytest

from kvorum.lab.study.study import Study
from kvorum.models.catalogue import CATALOGUE, memory_needed
from kvorum.wording import size

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "tools" / "build_docs.py"
PAGES = (
    "README.md",
    "docs/architecture.md",
    "docs/ask.md",
    "docs/crew.md",
    "docs/library/tour.md",
    "docs/library/decode.md",
    "docs/library/edits.md",
    "docs/library/grammars.md",
    "docs/library/talk.md",
    "docs/library/testing.md",
    "docs/memory.md",
    "docs/programs.md",
    "docs/programs/async_reasoning.md",
    "docs/programs/branch.md",
    "docs/programs/outline.md",
    "docs/programs/patch.md",
    "docs/programs/relay.md",
    "docs/programs/tree.md",
    "docs/skills.md",
)
BLOCK = re.compile(r"^```python\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / page).read_text(encoding="utf-8")
    names: dict[str, object] = {"__name__": "page"}
    blocks = list(BLOCK.finditer(text))
    assert blocks, "a page in the list has something to run"
    for block in blocks:
        above = text.count("\n", 0, block.start(1))  # so that a failure names the line of the page
        exec(compile("\n" * above + block[1], str(ROOT / page), "exec"), names)


def test_the_page_of_models_has_the_catalogue() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    for one in CATALOGUE.values():
        packed, exact = (size(memory_needed(one, exact=exact)) for exact in (False, True))
        cells = (f"`{one.name}`", one.title, size(one.size), packed, exact, one.licence)
        assert f"| {' | '.join(cells)} |" in page


def test_the_table_of_sizes_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it says of a model of the catalogue is what the catalogue says."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    tool = importlib.import_module("model_sizes")
    page = tool.PAGE.read_text(encoding="utf-8")
    assert tool.written(page) == page, "run tools/model_sizes.py"
    (ours,) = (model for model in tool.MODELS if model.name == "Qwen2.5 1.5B")
    held = ours.parameters + ours.outer  # its file holds the embeddings once more, as the output layer
    assert CATALOGUE["qwen2.5-coder-1.5b"].parameters == pytest.approx(1e9 * held, rel=1e-3)
    assert ours.weights(16, 16) == pytest.approx(2 * ours.parameters)
    small = tool.Device("small", 4, 0)  # 4 GB less 3.09 GB of weights, at 28,672 bytes a token
    assert small.fits(ours) == "bf16: 31 k"


def test_the_page_of_the_lab_has_a_study_that_is_one_and_every_key(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "lab.md").read_text(encoding="utf-8")
    shown = re.search(r"^```yaml\n(name:.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    assert shown is not None
    file = tmp_path / "mine.yaml"
    file.write_text(shown[1], encoding="utf-8")
    assert Study.read(file).cells
    table = page[page.index("| key | default |") : page.index("| key of an arm |")]
    told = set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines() if line[:1] == "|")))
    assert told == {*Study.__dataclass_fields__, "budgets"}


def test_the_site_is_built_and_nothing_is_wrong_with_it(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, BUILD, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    start = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert 'href="library/tour.html"' in start
    assert not re.findall(r'<(?:link|script|img)[^>]*(?:href|src)="https?://', start), (
        "nothing is fetched from elsewhere"
    )


def test_what_is_wrong_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    build = importlib.import_module("build_docs")
    text, wrong = build.with_links(
        "docs/lab.md", "lab.md", "[a](nowhere.md) [b](../src/kvorum/api.py) [c](../README.md#use-it)"
    )
    assert wrong == ["docs/lab.md links to docs/nowhere.md, which is not there."]
    assert text == "[a](nowhere.md) b [c](index.md#use-it)"
    words = '''
class Known:
    """Has the field ``one``."""
    one: int
    two: int
    def go(self): ...
def plain(a, c):
    """Say it.

    Args:
        a: the one.
        c: the other.
        b: not there.
    """
'''
    with griffe.temporary_visited_module(words) as module:
        said = list(build.undocumented({name: module[name] for name in ("Known", "plain")}))
    assert said[:2] == ["Known.two is public and has no docstring.", "Known.go is public and has no docstring."]
    assert any("does not appear in the function signature" in complaint for complaint in said[2:])


def test_arguments_that_share_a_line_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    lines = importlib.import_module("docstring_lines")
    words = """Go.

Args:
    one: the first. two: the second: it
    goes on. three: is no argument.

Raises:
    BadRequest: never. OutOfPages, ViewError: often,
    as said."""
    assert lines.split(words, ["one", "two"]).splitlines()[3:] == [
        "    one: the first.",
        "    two: the second: it",
        "        goes on. three: is no argument.",
        "",
        "Raises:",
        "    BadRequest: never.",
        "    OutOfPages, ViewError: often,",
        "        as said.",
    ]
