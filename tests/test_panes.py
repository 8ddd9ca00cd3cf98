"""Panes: what is drawn for which state and terminal size, and a real terminal from start to end."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from kvorum.cli.display.panes import Frame, shape
from kvorum.cli.display.state import ShownRun, trace_clock
from kvorum.wording import harmless
from tiny_folder import tiny_file

NAMES = ("Alice", "Bob", "Carol", "Dave", "Erin", "Frank", "Grace", "Heidi")


def start(workers: int) -> Any:
    return {
        "event": "start",
        "program": "hogwild",
        "task": {"prompt": "What is\n6 * 7?", "name": ""},
        "workers": list(NAMES[:workers]),
        "budget": {"ticks": 100},
        "model": {"name": "tiny"},
        "seed": 0,
        "params": {},
    }


def tick(n: int, *rows: tuple[str, str, str]) -> Any:
    """A tick with rows of (worker, words given, words picked)."""
    lines = [{"worker": w, "fed": 1, "token": 1, "text": t, **({"given": g} if g else {})} for w, g, t in rows]
    return {"event": "tick", "n": n, "seconds": n / 10, "rows": lines}


def state_of(workers: int, words: int = 60) -> ShownRun:
    state = ShownRun(clock=trace_clock)
    state.feed(start(workers))
    names = NAMES[:workers]
    state.feed(tick(0, *((name, f"**{name} [1]:** Hi, I am {name}.", " I") for name in names)))
    for n in range(1, words):
        state.feed(tick(n, *((name, "", f" {name.lower()}{n}") for name in names)))
    return state


def drawn(state: ShownRun, width: int, height: int, **options: Any) -> list[str]:
    console = Console(width=width, height=height, force_terminal=True, color_system=None, **options)
    with console.capture() as capture:
        console.print(Frame(state), end="")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capture.get()).split("\n")
    assert len(lines) == height
    assert all(cell_len(line) == width for line in lines)
    return lines


@pytest.mark.parametrize(("width", "height"), [(120, 40), (80, 24), (40, 20), (40, 8), (20, 5), (200, 60), (10, 2)])
@pytest.mark.parametrize("workers", [1, 2, 4, 5, 8])
def test_a_frame_fills_any_terminal_exactly(width: int, height: int, workers: int) -> None:
    drawn(state_of(workers), width, height)


@pytest.mark.parametrize(("width", "height"), [(120, 40), (80, 24), (40, 20)])
@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_everyone_is_seen_with_the_newest_words_last(width: int, height: int, workers: int) -> None:
    screen = "\n".join(drawn(state_of(workers), width, height))
    for name in NAMES[:workers]:
        assert name in screen
        assert f"{name.lower()}59" in screen
    assert "60/100 ticks" in screen
    assert "What is 6 * 7?" in screen


def test_shapes() -> None:
    assert shape(4, 120, 36) == (2, 2)
    assert shape(4, 40, 16) == (1, 4)  # stacked, each readable
    assert shape(2, 80, 20) == (2, 1)
    assert shape(5, 120, 36) == (3, 2)
    assert shape(1, 200, 50) == (1, 1)
    columns, rows = shape(64, 40, 16)
    assert columns * rows < 64


def test_with_more_workers_than_room_those_who_spoke_last_are_shown() -> None:
    state = state_of(8, 4)
    state.feed(tick(4, ("Heidi", "", " latest")))
    screen = "\n".join(drawn(state, 30, 6))
    assert "latest" in screen


def test_a_result_that_left_a_full_view_is_told() -> None:
    state = state_of(1, 3)
    note: Any = {"event": "note", "kind": "prune", "worker": "Alice", "tool": "look", "lo": 4, "hi": 9, "at": 20}
    state.feed(note)
    assert "> the result of look was removed to make room" in "\n".join(drawn(state, 80, 20))


def test_steps_that_moved_are_marked_and_those_to_come_begin_anew() -> None:
    state = state_of(2, 3)
    state.feed({"event": "move", "worker": "Bob", "tokens": 5, "into": "history", "block": 3, "from": []})
    state.feed(tick(3, ("Alice", "", " on"), ("Bob", "**Bob [2]:** ", "Next")))
    lines = drawn(state, 80, 20)
    right = [line.split("│")[-1].strip() for line in lines if "│" in line]
    assert right[0].startswith("✓ [1] Hi, I am Bob. I bob1 bob2")
    assert right[1] == "[2] Next"
    assert not any("✓" in line.split("│")[0] for line in lines)
    assert state.moved == 1
    assert "1 step shared" in lines[-1]


def test_a_resize_wraps_again() -> None:
    state = state_of(1)
    narrow, wide = drawn(state, 40, 12), drawn(state, 100, 12)
    assert any("alice59" in line for line in narrow)
    assert any("alice59" in line and "alice50" in line for line in wide)


def test_an_endless_line_and_wide_characters() -> None:
    state = state_of(2, 1)
    for n in range(1, 80):
        state.feed(tick(n, ("Alice", "", "字" * 97), ("Bob", "", "x" * 97)))
    state.feed(tick(80, ("Alice", "", "終"), ("Bob", "", "END")))
    began = time.perf_counter()
    lines = drawn(state, 100, 30)
    assert time.perf_counter() - began < 1
    assert any("終" in line for line in lines)
    assert any("END" in line for line in lines)


def test_the_problem_is_not_repeated_as_words_that_a_worker_was_given() -> None:
    state = ShownRun()
    state.feed(start(1))
    state.feed(tick(0, ("Alice", "user\nWhat is\n6 * 7?\nThink.", "42")))
    assert [line.text for line in state.workers["Alice"].lines] == ["42"]


def test_a_worker_that_has_left_is_quiet_and_one_that_joins_gets_a_pane() -> None:
    state = state_of(2, 5)
    for n in range(5, 40):
        state.feed(tick(n, ("Alice", "", "."), *((("Zoe", "", "z"),) if n > 20 else ())))
    assert state.quiet(state.workers["Bob"])
    assert not state.quiet(state.workers["Alice"])
    assert "Zoe" in "\n".join(drawn(state, 120, 30))


def test_text_cannot_command_the_terminal() -> None:
    assert harmless("a\x1b[2Jb\x07\x9b31m\rc\td\u202e\n") == "a[2Jb31mc    d\n"
    state = ShownRun()
    state.feed(start(1))
    state.feed(tick(0, ("Alice", "", "\x1b]0;owned\x07[bold]not markup[/bold]")))
    screen = "\n".join(drawn(state, 80, 10))
    assert "\x1b" not in screen
    assert "[bold]not markup[/bold]" in screen


# -- a real terminal -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny() -> str:
    return str(tiny_file())


class Terminal:
    """`kvorum` in a pseudo-terminal; ``seen`` is all that it wrote."""

    def __init__(self, words: list[str], width: int, height: int, **environment: str) -> None:
        self.seen = ""
        self._master, slave = pty.openpty()
        self.resize(width, height)
        clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
        clean |= {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1", **environment}
        command = [sys.executable, "-W", "error", "-m", "kvorum.cli", *words]
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=clean,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(slave)

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def until(self, words: str, seconds: float = 90) -> None:
        """Read until ``words`` were written."""
        end = time.monotonic() + seconds
        while words not in self.seen:
            assert time.monotonic() < end, f"{words!r} did not come: {self.seen[-2000:]!r}"
            assert self._read(), f"{words!r} did not come: {self.seen[-2000:]!r}"

    def send(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait(self) -> int:
        while self._read():
            pass
        return self.process.wait(30)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)

    def _read(self) -> bool:
        if not select.select([self._master], [], [], 30)[0]:
            return False
        try:
            piece = os.read(self._master, 65536)
        except OSError:  # the other side is closed
            return False
        self.seen += piece.decode("utf-8", errors="replace")
        return bool(piece)


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def trace_of(folder: Path) -> str:
    board_events = [start(2), tick(0, ("Alice", "", "We know that"), ("Bob", "", "Then it is"))]
    board_events += [tick(n, ("Alice", "", f" a{n}"), ("Bob", "", f" b{n}")) for n in range(1, 30)]
    about = {"name": "tiny", "dtype": "float32", "weights": "exact", "kv_tokens": 1, "page_size": 16}
    board_events[0] |= {"format": 1, "model": about, "sampling": {}, "versions": {}}
    ledger = {"ticks": 30, "decoded": 60, "prefill": 9, "latent": 0, "kv_read": 5e6, "kv_written": 1e6, "seconds": 3.0}
    board_events.append({"event": "end", "outcome": "answered", "answer": "42", "spent": None, "ledger": ledger})
    path = folder / "run.jsonl"
    path.write_text("\n".join(json.dumps(event) for event in board_events))
    return str(path)


def test_panes_then_everything_in_the_scrollback(tmp_path: Path) -> None:
    with Terminal(["replay", trace_of(tmp_path), "--show", "--speed", "6", "--hold", "1"], 100, 30) as terminal:
        terminal.until("30/100 ticks")
        assert terminal.wait() == 0
    panes, _, after = terminal.seen.rpartition("\x1b[?1049l")
    assert "\x1b[?1049h" in panes
    assert "Alice" in panes
    assert "\x1b[1;36mAlice" in panes
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", after)
    assert "We know that a1 a2" in plain
    assert "b28 b29" in plain
    assert "42" in plain
    assert "30 ticks, 60 tokens decoded" in plain


def test_no_color_and_a_terminal_without_any_talent(tmp_path: Path) -> None:
    trace = trace_of(tmp_path)
    with Terminal(["replay", trace, "--show", "--speed", "0"], 60, 20, NO_COLOR="1") as terminal:
        assert terminal.wait() == 0
    assert "42" in terminal.seen
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", terminal.seen)
    with Terminal(["replay", trace, "--show", "--speed", "0"], 60, 20, TERM="dumb") as terminal:
        assert terminal.wait() == 0
    assert "\x1b" not in terminal.seen
    assert "Alice | We know that a1" in terminal.seen


def test_a_run_in_a_terminal_of_forty_columns_is_resized_and_stopped(tiny: str, tmp_path: Path) -> None:
    trace = tmp_path / "run.jsonl"
    words = [
        "solve",
        "What is 2 + 2?",
        "-m",
        tiny,
        "-p",
        "hogwild",
        "-w",
        "4",
        "-b",
        "100000",
        "--param",
        "suppress_end=true",
    ]
    with Terminal([*words, "--trace", str(trace), "--kv-tokens", "500000"], 40, 20) as terminal:
        terminal.until("Dave")
        terminal.resize(70, 15)
        time.sleep(0.5)
        terminal.send("\x03")
        assert terminal.wait() == 130
    panes, _, after = terminal.seen.rpartition("\x1b[?1049l")
    assert "Dave" in panes
    flat = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r\n", "", after)
    assert "Traceback" not in flat
    assert f"kvorum replay {trace} --resume" in flat
    assert trace.read_text().count('"tick"') > 0
    assert terminal.seen.rstrip().endswith("--resume")


def note(kind: str, **data: Any) -> Any:
    return {"event": "note", "kind": kind, "worker": "Alice", **data}


def test_a_message_is_shown_field_by_field_once_it_is_whole() -> None:
    state = state_of(1, 2)
    state.feed(note("told", text="Judge it."))
    state.feed(tick(2, ("Alice", "", '{"remark": "a\\n')))
    state.feed(tick(3, ("Alice", "", '\\"b\\"", "ok": tru')))
    whole = '{"remark": "a\\n\\"b\\"", "ok": true}'
    assert [line.text for line in state.workers["Alice"].lines][1:] == [whole[:-2]]
    state.feed(note("closed", text="e}"))
    assert [line.text for line in state.workers["Alice"].lines][1:] == [whole]
    state.feed(note("post", step="check", fields={"remark": 'a\n"b"', "ok": True}))
    state.feed(tick(4, ("Alice", "", "More.")))
    shown = [line.text for line in state.workers["Alice"].lines if line.text]
    assert shown == ["[1] Hi, I am Alice. I alice1", "remark: a", '"b"', "ok: true", "More."]
    assert "ok: true" in "\n".join(drawn(state, 40, 12))
