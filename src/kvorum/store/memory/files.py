"""Memory as files, to be read, edited, and taken elsewhere: JSON Lines and Markdown.

What is written is read back as it was: ids, times, sources and what supersedes what. In Markdown an entry is an item of
a list, and what is known of it stands in a comment behind it; a list that a person wrote, without comments, is as good.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from kvorum.errors import BadRequest
from kvorum.jsontypes import JsonObject
from kvorum.store.memory.entries import NAMESPACE, Entry, checked, new_entry

MOST_BYTES = 100_000_000
"""Of a file that is read."""
_ABOUT = "<!-- kvorum "
_HEADING = re.compile(r"# Memory: (.+)")
_ITEM = re.compile(r"[-*+] +")
_DETAILS = ("id", "source", "time", "supersedes")


def write_json_lines(entries: Iterable[Entry]) -> str:
    """An entry a line, as ``Entry.as_dict`` has it."""
    return "".join(f"{json.dumps(entry.as_dict(), ensure_ascii=False)}\n" for entry in entries)


def write_markdown(entries: Iterable[Entry]) -> str:
    """A heading for each namespace, and an item of a list for each entry."""
    parts: list[str] = []
    namespace = ""
    for entry in entries:
        if entry.namespace != namespace:
            namespace = entry.namespace
            parts.append(f"{chr(10) if parts else ''}# Memory: {namespace}\n\n")
        lines = [line and f"  {line}" for line in entry.text.split("\n")]
        about = {name: value for name, value in entry.as_dict().items() if name in _DETAILS and value is not None}
        parts.append(f"- {chr(10).join(lines)[2:]} {_ABOUT}{json.dumps(about, ensure_ascii=False)} -->\n")
    return "".join(parts)


def read_entries(path: str | Path, *, namespace: str | None = None, source: str = "person") -> list[Entry]:
    """The entries of a file; Markdown where its name ends in .md or .markdown, else JSON Lines.

    Args:
        namespace: into which all of them go; None: each into its own, or "default". source: of those that name none.

    Raises:
        BadRequest: it cannot be read; the message has the line.
    """
    path = Path(path)
    if not path.is_file():
        raise BadRequest(f"There is no file {path}.")
    if path.stat().st_size > MOST_BYTES:
        raise BadRequest(f"{path} is larger than {MOST_BYTES:,} bytes; split it.")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRequest(f"{path} is not UTF-8 text (byte {error.start + 1}).") from None
    lines = text.replace("\r\n", "\n").split("\n")
    read = _from_markdown if path.suffix.lower() in (".md", ".markdown") else _from_json_lines
    found = []
    for number, words, about in read(path, lines):
        try:
            found.append(_entry(words, about, namespace, source))
        except (BadRequest, ValueError, TypeError, OverflowError) as error:
            raise BadRequest(f"{path}, line {number}: {error}") from None
    return found


def _from_json_lines(path: Path, lines: Sequence[str]) -> Iterator[tuple[int, str, JsonObject]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"{path}, line {number} is no JSON ({error}).") from None
        if not isinstance(found, dict) or not isinstance(found.get("text"), str):
            raise BadRequest(f'{path}, line {number} is no entry: a JSON object with a "text".')
        yield number, found["text"], found


def _from_markdown(path: Path, lines: Sequence[str]) -> Iterator[tuple[int, str, JsonObject]]:
    """Items of lists, and paragraphs that are in none. Headings say the namespace, or nothing."""
    namespace: str | None = None
    begin, item, held = 0, False, list[str]()
    for number, line in enumerate([*lines, "#"], 1):
        starts = _ITEM.match(line)
        outside = bool(line.strip()) and not line.startswith(" ") and item  # what is not indented ends an item
        if held and (starts or line.startswith("#") or outside or not (line.strip() or item)):
            yield begin, *_split_about(path, begin, "\n".join(held), namespace)
            held = []
        if line.startswith("#"):
            heading = _HEADING.fullmatch(line.strip())
            namespace = heading[1].strip() if heading else namespace
        elif starts:
            begin, item, held = number, True, [line[starts.end() :]]
        elif held:
            held.append(line.removeprefix("  ") if item else line)
        elif line.strip():
            begin, item, held = number, False, [line]


def _split_about(path: Path, number: int, words: str, namespace: str | None) -> tuple[str, JsonObject]:
    words = words.rstrip()
    about: JsonObject = {} if namespace is None else {"namespace": namespace}
    before, mark, said = words.rpartition(_ABOUT)
    if mark and said.endswith(" -->"):
        try:
            about = {**about, **json.loads(said.removesuffix(" -->"))}
        except (ValueError, TypeError):
            raise BadRequest(f"{path}, line {number}: the comment behind the entry is no object of JSON.") from None
        words = before.removesuffix(" ")
    return words, about


def _entry(text: str, about: JsonObject, namespace: str | None, source: str) -> Entry:
    """Raises BadRequest, ValueError, TypeError: it says something that cannot be."""
    where = namespace or about.get("namespace") or NAMESPACE
    said = about.get("source") or source
    given, old, moment = about.get("id"), about.get("supersedes"), about.get("time")
    if not isinstance(where, str) or not isinstance(said, str):
        raise BadRequest("namespace and source are texts.")
    if not isinstance(given, str | None) or not isinstance(old, str | None):
        raise BadRequest("id and supersedes are ids.")
    seconds = None
    if moment is not None:
        if not isinstance(moment, str):
            raise BadRequest("time is a text as in 2026-11-29T16:20:00Z.")
        read = datetime.fromisoformat(moment)
        seconds = round((read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp(), 6)
    made = new_entry(text, where, said, moment=seconds, supersedes=old)
    return made if given is None else checked(Entry(given, made.text, said, made.time, where, old))
