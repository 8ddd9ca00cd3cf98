"""Streams whose replies are kept whole, for those who compare them."""

from __future__ import annotations

from clients import Stream


class Kept(Stream):
    """A stream with all that came of it."""

    def __init__(self, request: bytes, mark: bytes) -> None:
        super().__init__(request, mark)
        self._raw = bytearray()

    def data_received(self, data: bytes) -> None:
        self._raw += data
        super().data_received(data)

    @property
    def status(self) -> int:
        """Of HTTP; 0: nothing came."""
        return int(self.head.split()[1]) if self.head else 0

    @property
    def replica(self) -> str:
        """Who replied; empty where nobody says so."""
        head = bytes(self._raw).partition(b"\r\n\r\n")[0].decode()
        named = [line.partition(": ")[2] for line in head.splitlines() if line.lower().startswith("x-kvorum-replica:")]
        return named[0] if named else ""

    def _body(self) -> str:
        """As far as it came."""
        rest, body = bytes(self._raw).partition(b"\r\n\r\n")[2], b""
        while rest:  # chunks: a length in hexadecimal, so many bytes, an end of line
            size, _, rest = rest.partition(b"\r\n")
            body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        return body.decode(errors="ignore")

    def events(self) -> list[dict[str, str]]:
        """The events that came whole, by the names of their fields."""
        whole = self._body().split("\n\n")[:-1]
        return [dict(line.split(": ", 1) for line in each.splitlines()) for each in whole]

    @property
    def whole(self) -> bool:
        """Whether a chat's reply came to its end."""
        return self.status == 200 and any(each.get("data") == "[DONE]" for each in self.events())

    def ends(self) -> int:
        """How often a chat's reply says why it ends."""
        return sum('"finish_reason":"' in each.get("data", "") for each in self.events())
