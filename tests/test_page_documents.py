"""The page's documents: questions of a text and forms, as they are written; files; and what a model's Markdown becomes.

In a real headless Chromium against the real server on a tiny random model, whose answers say nothing: that they are the
server's own, each in its place, is what counts. What `/v1/ask` and `/v1/fields` reply is in test_serve_documents.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from browser import chromium, desk, expect, model, server, until, visit

api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'kvorum[test]'")
pytestmark = pytest.mark.skipif(chromium() is None, reason="no chromium here: apt-get install chromium")
DONE = "!document.querySelector('#documents-start').disabled"
FORM = {"type": "object", "properties": {"kind": {"enum": ["mill", "ship"]}, "old": {"type": "boolean"}}}


def reply(page: Any, path: str, body: dict[str, Any]) -> Any:
    return page.evaluate(
        "async ([path, body]) => (await fetch(path, { method: 'POST', headers: { 'Content-Type': 'application/json' },"
        " body: JSON.stringify(body) })).json()",
        [path, body],
    )


def test_questions_are_answered_side_by_side(visit: Callable[..., Any]) -> None:
    page = visit("#/documents")
    page.fill("#document-text", "The mill was built in 1804.")
    page.fill("#questions", "When?\n\n  By whom? \n<b>Where?</b>")
    page.keyboard.press("Control+Enter")
    until(page, "/ in .* forward passes/.test(document.querySelector('#documents-facts').textContent)")
    assert page.locator("#answers h3").all_inner_texts() == ["When?", "By whom?", "<b>Where?</b>"]
    questions = ["When?", "By whom?", "<b>Where?</b>"]
    told = reply(page, "/v1/ask", {"documents": {"text": "The mill was built in 1804."}, "questions": questions})
    for at, answer in enumerate(told["answers"]):
        shown = page.locator("#answers .answer").nth(at).evaluate("each => each.textContent")
        words = "".join(letter for letter in (answer["text"] or "") if letter.isalnum())
        assert "".join(letter for letter in shown if letter.isalnum()) == words
    assert page.locator("#answers .writing").count() == 0
    assert page.locator("#answers b").count() == 0


def test_a_form_is_filled_and_what_cannot_be_is_said(visit: Callable[..., Any]) -> None:
    page = visit("#/documents")
    page.fill("#document-text", "The mill was built in 1804.")
    page.check("#as-form")
    api.expect(page.locator("#questions")).to_be_hidden()
    page.fill("#schema", "{")
    page.click("#documents-start")
    api.expect(page.locator("#documents-error")).to_contain_text("The form is no JSON")
    page.fill("#schema", json.dumps(FORM))
    page.click("#documents-start")
    api.expect(page.locator("#answers li.whole")).to_be_visible()
    told = reply(page, "/v1/fields", {"document": "The mill was built in 1804.", "schema": FORM})
    assert json.loads(page.inner_text("#answers li.whole code")) == told["value"]
    assert sorted(page.locator("#answers li:not(.whole) h3").all_inner_texts()) == ["kind", "old"]


def test_files_are_read_in_the_page_and_what_is_no_text_is_refused(visit: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.", encoding="utf-8")
    (tmp_path / "b.md").write_text("Two.", encoding="utf-8")
    (tmp_path / "c.pdf").write_bytes(b"%PDF-1.7 ...")
    (tmp_path / "d.bin").write_bytes(b"\0\1")
    page = visit("#/documents")
    page.set_input_files("#documents-files", [str(tmp_path / name) for name in ("a.txt", "b.md", "c.pdf", "d.bin")])
    api.expect(page.locator("#document-list li")).to_have_count(2)
    error = page.inner_text("#documents-error")
    assert "c.pdf is no text" in error
    assert "d.bin is no text" in error
    page.click("#document-list button >> nth=0")
    api.expect(page.locator("#document-list li")).to_have_count(1)
    with page.expect_request("**/v1/ask") as asked:
        page.fill("#questions", "What?")
        page.click("#documents-start")
    assert json.loads(asked.value.post_data)["documents"] == {"b.md": "Two."}
    until(page, DONE)


def test_calls_of_tools_are_shown_and_not_carried_out(visit: Callable[..., Any]) -> None:
    page = visit("#/documents")
    page.fill("#document-text", "Put the feast down.")
    page.check("#as-tools")
    page.fill("#tools", "[")
    page.click("#documents-start")
    api.expect(page.locator("#documents-error")).to_contain_text("The tools are no JSON")
    kinds = {"type": "object", "properties": {"kind": {"enum": ["mill", "ship"]}}, "required": ["kind"]}
    page.fill("#tools", json.dumps([{"type": "function", "function": {"name": "add", "parameters": kinds}}]))
    asked = []

    def must(route: Any) -> None:  # a random model calls nothing unless it must
        asked.append(json.loads(route.request.post_data))
        route.continue_(post_data=json.dumps(asked[-1] | {"tool_choice": "required", "parallel_tool_calls": False}))

    page.route("**/v1/chat/completions", must)
    page.click("#documents-start")
    expect(page, "#documents-facts", re.compile("Nothing was carried out"))
    assert asked[0]["messages"] == [{"role": "user", "content": "Put the feast down."}]
    assert page.locator("#answers h3").all_inner_texts() == ["Reply", "1. add"]
    assert json.loads(page.locator("#answers .answer").nth(1).inner_text())["kind"] in ("mill", "ship")


def test_it_can_be_stopped_and_an_example_is_there(visit: Callable[..., Any]) -> None:
    page = visit("#/documents")
    page.click("#documents-start")
    api.expect(page.locator("#documents-error")).to_contain_text("at least one question")
    page.click("#documents-example")
    until(page, "document.querySelector('#tools').value.includes('add_event')")
    page.fill("#questions", "\n".join(f"What is told in line {line}?" for line in range(200)))  # enough to be there yet
    page.click("#documents-start")
    page.click("#documents-stop")
    expect(page, "#documents-facts", "Stopped.")
    until(page, DONE)
    page.click("nav >> text=New")
    api.expect(page.locator("#documents")).to_be_hidden()
    page.click("#examples button >> nth=1")
    assert page.input_value("#problem")
    assert page.input_value("#program") == "vote"


RENDER = (
    "async text => { const { markdown } = await import('/page/markdown.js');"
    " const root = document.createElement('div'); root.append(...markdown(text)); return root.%s; }"
)
MARKDOWN = """# A *title*

Some **bold**, _not_ `code <b>` and $x^2$, price 5$ and 6$.
- one
- two
  1. inner
```python
print("<script>")
```
| a | b |
|---|---|
| 1 | 2 |

> said
\\[
E = mc^2
\\]
[here](javascript:alert(1)) ![pic](https://example.org/x.png) <img src=x onerror=alert(1)>
"""


def test_markdown_becomes_elements_of_our_own_and_nothing_else(visit: Callable[..., Any]) -> None:
    page = visit()
    made = page.evaluate(RENDER % "innerHTML", MARKDOWN)
    assert "<h3>A <em>title</em></h3>" in made
    assert "<strong>bold</strong>, _not_ <code>code &lt;b&gt;</code>" in made
    assert "price 5$ and 6$." in made
    assert '<code class="formula">x^2</code>' in made
    assert "<ul><li>one</li><li>two<ol><li>inner</li></ol></li></ul>" in made
    assert 'data-kind="python" tabindex="0"><code>print("&lt;script&gt;")</code></pre>' in made
    assert "<thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td>2</td></tr></tbody>" in made
    assert "<blockquote><p>said</p></blockquote>" in made
    assert '<div class="math display" tabindex="0"><code class="formula">E = mc^2</code></div>' in made
    assert "here (javascript:alert(1)" in made
    assert "pic (https://example.org/x.png)" in made
    assert "&lt;img src=x onerror=alert(1)&gt;" in made
    assert not {"<img", "<a ", "<script"} & {part for part in ("<img", "<a ", "<script") if part in made}


ODD = [
    "",
    "\n\n",
    "```",
    "`" * 50,
    "*" * 200,
    "|",
    "| |",
    "- ",
    "-\n-",
    "> " * 40,
    "[](",
    "$$",
    "\\[",
    "1) a\n  - b\n- c",
    "_" * 99,
]


def test_odd_markdown_loses_nothing_and_ends(visit: Callable[..., Any]) -> None:
    page = visit()
    for text in ODD:
        shown = page.evaluate(RENDER % "textContent", text)
        assert [letter for letter in shown if letter.isalpha()] == [letter for letter in text if letter.isalpha()], text
