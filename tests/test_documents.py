"""Documents: what becomes of files of all kinds, and which are refused in which words.

PDFs are written here by hand, object by object, so that their fonts and pages are what the case says; HTML goes through
the real library. Not covered: fonts and layouts of real producers.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from kvorum.errors import BadRequest, MissingExtra
from kvorum.harness.documents import Document, as_document, read_document, read_documents

CMAP = b"""/CIDInit /ProcSet findresource begin 12 dict begin begincmap
1 begincodespacerange <00> <FF> endcodespacerange
2 beginbfchar <66> <E001> <67> <0000> endbfchar endcmap end end"""


def pdf(*pages: str, private: bool = False) -> bytes:
    """A PDF with a line of text on each page; "" is a page without any. ``private``: of a font without f and g."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b""]
    font = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica" + (b" /ToUnicode 4 0 R" if private else b"") + b" >>"
    objects += [font, b"<< /Length %d >> stream\n%b\nendstream" % (len(CMAP), CMAP)]
    kids = []
    for text in pages:
        content = b"BT /F1 12 Tf 72 720 Td (%b) Tj ET" % text.encode("latin-1") if text else b"0 0 100 100 re f"
        at = len(objects) + 1
        kids.append(b"%d 0 R" % at)
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >> "
            b"/Contents %d 0 R >>" % (at + 1)
        )
        objects.append(b"<< /Length %d >> stream\n%b\nendstream" % (len(content), content))
    objects[1] = b"<< /Type /Pages /Kids [%b] /Count %d >>" % (b" ".join(kids), len(kids))
    out, places = b"%PDF-1.4\n", []
    for at, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (at, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    tail = b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, len(out))
    return out + head + table + tail


# -- text ----------------------------------------------------------------------------------------------------------


def test_text_is_what_the_file_holds(tmp_path: Path) -> None:
    note, page = tmp_path / "note.txt", tmp_path / "page.md"
    note.write_bytes("first\r\nsecond ünï\n".encode())
    page.write_text("# Title\n\n<b>not a page</b>\n", encoding="utf-8")
    found = read_documents([note, page, note])
    assert [document.text for document in found] == ["first\r\nsecond ünï\n", "# Title\n\n<b>not a page</b>\n"]
    assert [document.name for document in found] == [str(note), str(page)]
    assert found[0].place(found[0].text.index("second")) == "line 2"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_a_byte_order_mark_is_read_and_left_out(encoding: str) -> None:
    data = ("\ufeff" if encoding == "utf-16-be" else "") + "Zug 7 fährt ab."
    assert as_document("x.txt", data.encode(encoding)).text.lstrip("\ufeff") == "Zug 7 fährt ab."
    assert not as_document("x.txt", data.encode(encoding)).text.startswith("\ufeff")


def test_standard_input_is_a_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from a pipe")))
    assert read_document("-") == Document("standard input", "from a pipe")


def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "empty.txt": (b" \n", "is empty"),
        "latin.txt": ("fährt".encode("latin-1"), "is not UTF-8 text (byte 2)"),
        "picture.png": (b"\x89PNG\r\n\x1a\n\0\0", "is not UTF-8 text (byte 1)"),
        "core": (b"ab\0cd", "is a binary file"),
        "broken.pdf": (b"%PDF-1.4\nnothing more", "cannot be read as a PDF: "),
        "scan.pdf": (pdf("", ""), "has no text on its 2 pages"),
        "void.html": (b"<html><body><script>x = 1</script></body></html>", "is empty"),
    }
    for name, (data, words) in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadRequest) as caught:
            read_document(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name} {words}"), caught.value
        assert "\n" not in str(caught.value)
    with pytest.raises(BadRequest, match=r"^There is no file .*gone\.txt\.$"):
        read_document(tmp_path / "gone.txt")
    with pytest.raises(BadRequest, match=r"is a folder; name the files in it\.$"):
        read_document(tmp_path)
    with pytest.raises(BadRequest, match="cannot be read"):
        read_document("a\0b")
    with pytest.raises(BadRequest, match="There is no document"):
        read_documents([])
    monkeypatch.setattr("kvorum.harness.documents._MOST", 10)
    (tmp_path / "large.txt").write_text("x" * 11)
    with pytest.raises(BadRequest, match=r"large\.txt is larger than"):
        read_document(tmp_path / "large.txt")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("pypdf", "inscriptis"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=r"pip install 'kvorum\[documents\]'"):
        as_document("x.pdf", pdf("words"))
    with pytest.raises(MissingExtra, match="inscriptis"):
        as_document("x.html", b"<p>words</p>")


# -- PDF -----------------------------------------------------------------------------------------------------------


def test_pages_of_a_pdf_are_in_order_and_have_places() -> None:
    found = as_document("x.pdf", pdf("The first page.", "The second page."))
    assert found.text == "The first page.\n\nThe second page.\n"
    assert [found.place(found.text.index(word)) for word in ("first", "second")] == ["page 1", "page 2"]
    assert found.remark == ""


def test_letters_that_a_font_does_not_name_are_marked_and_told() -> None:
    """P83: no U+0000 and no private-use character in the text given to the model, and the page is flagged."""
    found = as_document("x.pdf", pdf("plain", "office egg", private=True))
    assert found.text == "plain\n\no\ufffd\ufffdice e\ufffd\ufffd\n"
    assert found.remark == "page 2 with letters that the file does not name (\ufffd)"


def test_a_page_without_text_is_told() -> None:
    """P85: the result names page 2 as without text."""
    found = as_document("x.pdf", pdf("one", "", "three"))
    assert found.remark == "page 2 without text that can be read"
    assert found.place(found.text.index("three")) == "page 3"


# -- HTML ----------------------------------------------------------------------------------------------------------


def test_blocks_of_a_page_separate_words_and_each_text_comes_once() -> None:
    """P86: block tags separate words; each text once, in order."""
    found = as_document("x", b"<!DOCTYPE html><section>one two<h2>Head</h2>three<p>four</p></section>").text
    assert found.split() == ["one", "two", "Head", "three", "four"]
    assert [line for line in found.splitlines() if line] == ["one two", "Head", "three", "four"]


def test_a_sentence_with_inline_tags_is_kept_whole() -> None:
    """P87: the whole sentence is kept, in a layout table too."""
    data = b"<html><table><tr><td><p>Rate <i>r</i> is 3 <b>percent</b> a year</p></td></tr></table></html>"
    assert as_document("x", data).text == "Rate r is 3 percent a year"


def test_a_page_says_what_it_is_written_in() -> None:
    page = '<?xml version="1.0" encoding="{0}"?><html><head><meta charset="{0}"></head><body>fährt</body></html>'
    for charset in ("utf-8", "iso-8859-1"):
        assert as_document("x.html", page.format(charset).encode(charset)).text == "fährt"
    with pytest.raises(BadRequest, match="is not UTF-8"):
        as_document("x.html", page.format("nonsense").encode("iso-8859-1"))
    with pytest.raises(BadRequest, match="is not UTF-8"):
        as_document("x.txt", "fährt".encode("iso-8859-1"))


def test_scripts_styles_and_comments_are_no_text() -> None:
    page = b"<html><head><title>T</title><style>p {}</style></head><body><!-- no --><p>yes<script>no()</script></p>"
    assert as_document("x.htm", page).text == "yes"
