"""Versions of what is kept on disk: one line for each form, and the one way in which another version is refused.

A change of what is written raises ``newest``; what was written before it is read on, by a reader in ``store`` (or in
``models`` for its caches) that is told the version. No file is migrated in place but the tables of databases (runs,
responses, memory): each version of those is a step from the one before, taken when they are opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from kvorum.errors import BadRequest, BadTrace, BlockMismatch, KvorumError, OtherVersion
from kvorum.jsontypes import Json


@dataclass(frozen=True, slots=True)
class Form:
    """One kind of thing that is kept.

    ``mark`` stands before the number where a file's own format key is a text, such as ``kvorum-block-2``. ``remedy``
    is what helps where this kvorum reads neither that version nor what the thing is.
    """

    what: str
    oldest: int
    newest: int
    error: type[KvorumError]
    remedy: str
    mark: str = ""

    @property
    def key(self) -> str:
        """What a file of the newest version says of itself."""
        return f"{self.mark}{self.newest}"

    def version(self, found: Json, place: object) -> int:
        """The version that ``place`` says it is of, by ``found``.

        Raises the form's error: it is of no version that this kvorum reads.
        """
        text = str(found).removeprefix(self.mark) if str(found).startswith(self.mark) else ""
        number = int(text) if text.isdecimal() else -1
        if number > self.newest:
            raise self.error(
                f"{place} is a {self.what} of version {number}, and this kvorum reads versions up to {self.newest}: "
                f"take the kvorum that wrote it, or {self.remedy}."
            )
        if number < self.oldest:
            raise self.error(f"{place} is not a {self.what} of a version that can be read; {self.remedy}.")
        return number


def installed_version(package: str) -> str | None:
    """The version of a package that is installed here; None where it is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


TRACE = Form("kvorum trace", 1, 4, BadTrace, "run the task again")
RUN_STORE = Form("store of runs", 1, 3, BadRequest, "give --store FOLDER")
RESPONSES = Form("store of responses", 1, 2, BadRequest, "give --store FOLDER")
MEMORY = Form("memory", 1, 1, BadRequest, "name another file (KVORUM_MEMORY, --memory-file)")
BLOCK = Form("kvorum block file", 1, 2, BlockMismatch, "save the block again", "kvorum-block-")
PACKED = Form("file of packed weights", 1, 3, OtherVersion, "set KVORUM_HOME to another folder", "kvorum-packed-")
CONVERSION = Form("converted model", 1, 2, OtherVersion, "set KVORUM_HOME to another folder")
STUDY = Form("record of a study", 1, 2, BadTrace, "run the study again in another folder")
