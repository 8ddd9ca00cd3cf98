"""Documents: files as text. Text and Markdown as they are, PDF and HTML by the libraries of the extra `documents`.

What could not be read is told in a document's remark, so that nobody answers from a page that was never there. Not
covered: pictures of text (no letters are recognised), office formats, addresses on the web.
"""

from __future__ import annotations

import codecs
import io
import re
import sys
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvorum.errors import BadRequest, need
from kvorum.wording import first_line, size

STANDARD_INPUT = "-"
"""The path that stands for standard input."""
_MOST = 100_000_000
"""Bytes of a file above which it is refused unread: no model's context holds as much."""
_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_MARKUP = re.compile(rb"\s*(<!--.*?-->\s*|<\?xml[^>]*>\s*)*<(!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL)
_CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([\w-]+)", re.IGNORECASE)
_NO_LETTER = re.compile("[\0\ud800-\udfff\ue000-\uf8ff\U000f0000-\U000ffffd\U00100000-\U0010fffd]")
"""What a PDF gives where its font does not say which letter a picture is: NUL, private use, half a pair."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text with its name. ``pages``: where in the text each page begins, if it has pages. ``remark``: what of the
    file is missing in the text, as a sentence without its full stop; "" for nothing."""

    name: str
    text: str
    pages: tuple[int, ...] = ()
    remark: str = ""

    def place(self, start: int) -> str:
        """Where character ``start`` of the text stands, for people: "page 3" or "line 12"."""
        if self.pages:
            return f"page {max(1, bisect_right(self.pages, start))}"
        return f"line {self.text.count(chr(10), 0, start) + 1}"


def given_documents(
    given: str | Path | Document | Sequence[Path | Document] | Mapping[str, str],
) -> tuple[dict[str, Document], dict[str, str], dict[str, str]]:
    """Documents by name, their texts, and remarks where there are some, from a text, files, documents or named texts.

    A file is called by its name without its folders where that is enough to tell them apart.

    Raises:
        BadRequest: see ``read_documents``.
    """
    if isinstance(given, str):
        found = [Document("text", given)]
    elif isinstance(given, Mapping):
        found = [Document(name, words) for name, words in given.items()]
    else:
        some = [given] if isinstance(given, Path | Document) else list(given)
        found = [one if isinstance(one, Document) else read_document(one) for one in some]
    names = [Path(document.name).name or document.name for document in found]
    if len(set(names)) < len(names):
        names = [document.name for document in found]
    documents = dict(zip(names, found, strict=True))
    texts = {name: document.text for name, document in documents.items()}
    return documents, texts, {name: document.remark for name, document in documents.items() if document.remark}


def read_documents(paths: Sequence[str | Path]) -> list[Document]:
    """The files' texts, in order; a path that comes again is read once. "-" is standard input.

    Raises:
        BadRequest: no paths, no such file, no text in it; the message names the file. MissingExtra: it is a PDF or HTML
            file, and the library for it is not installed.
    """
    if not paths:
        raise BadRequest("There is no document; name a file, or - for standard input.")
    return [read_document(path) for path in dict.fromkeys(map(str, paths))]


def read_document(path: str | Path) -> Document:
    """One file's text; see ``read_documents``."""
    name = "standard input" if str(path) == STANDARD_INPUT else str(path)
    try:
        if str(path) == STANDARD_INPUT:
            data = sys.stdin.buffer.read(_MOST + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(_MOST + 1)
    except IsADirectoryError:
        raise BadRequest(f"{name} is a folder; name the files in it.") from None
    except FileNotFoundError:
        raise BadRequest(f"There is no file {name}.") from None
    except (OSError, ValueError) as error:  # ValueError: a name with NUL in it
        raise BadRequest(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if len(data) > _MOST:
        raise BadRequest(f"{name} is larger than {size(_MOST)}, the most that is read; cut it into files.")
    document = as_document(name, data)
    if not document.text.strip():
        raise BadRequest(f"{name} is empty; there is nothing to ask about.")
    return document


def as_document(name: str, data: bytes) -> Document:
    """A file's bytes as a document: PDF and HTML by what they begin with or, for HTML, the name's ending.

    Raises:
        BadRequest: no text: binary, not UTF-8, locked, damaged, or pictures alone. MissingExtra: as above.
    """
    if data.lstrip()[:5] == b"%PDF-":
        return _pdf(name, data)
    html = name.lower().endswith((".html", ".htm", ".xhtml")) or _MARKUP.match(data[:4096]) is not None
    text = _decoded(name, data, _CHARSET.search(data[:4096]) if html else None)
    return Document(name, _plain(text) if html else text)


def _decoded(name: str, data: bytes, charset: re.Match[bytes] | None) -> str:
    """Bytes as text: what their byte order mark says, else UTF-8, else what a page says of itself."""
    encoding = next((name for mark, name in _BOMS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        try:
            if charset is None or encoding != "utf-8":
                raise LookupError
            text = data.decode(charset[1].decode("ascii"))
        except (LookupError, UnicodeDecodeError):
            raise BadRequest(
                f"{name} is not UTF-8 text (byte {error.start + 1}); give a text, Markdown, HTML or PDF file."
            ) from None
    if "\0" in text:
        raise BadRequest(f"{name} is a binary file; give a text, Markdown, HTML or PDF file.")
    return text


def _plain(html: str) -> str:
    """The text of a page: each block on lines of its own, in order, without scripts, styles and comments."""
    inscriptis = need("inscriptis", "Reading HTML", "documents")
    lines = [line.rstrip() for line in str(inscriptis.get_text(html)).splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")


def _pdf(name: str, data: bytes) -> Document:
    """A PDF's text, page behind page, with an empty line between."""
    pypdf = need("pypdf", "Reading PDF files", "documents")
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        locked = reader.is_encrypted and not reader.decrypt("")
        pages = [] if locked else [str(page.extract_text()).strip() for page in reader.pages]
    except Exception as error:  # whatever a damaged file makes the library raise
        raise BadRequest(f"{name} cannot be read as a PDF: {first_line(error).rstrip('.')}.") from error
    if locked:
        raise BadRequest(f"{name} is locked with a password; save it without one.")
    empty = [at for at, page in enumerate(pages, 1) if not page]
    unclear = [at for at, page in enumerate(pages, 1) if _NO_LETTER.search(page)]
    if len(empty) == len(pages):
        raise BadRequest(f"{name} has no text on its {len(pages)} pages, at most pictures of text.")
    starts, text = [], ""
    for page in pages:
        starts.append(len(text))
        text += _NO_LETTER.sub("\ufffd", page) + "\n\n"
    remarks = [f"{_numbers(empty)} without text that can be read"] if empty else []
    remarks += [f"{_numbers(unclear)} with letters that the file does not name (\ufffd)"] if unclear else []
    return Document(name, text.rstrip("\n") + "\n", tuple(starts), ", ".join(remarks))


def _numbers(pages: Sequence[int]) -> str:
    return f"page{'s' * (len(pages) > 1)} {', '.join(map(str, pages))}"
