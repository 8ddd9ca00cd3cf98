"""`kvorum chat`: a conversation in the terminal, about files or without any.

The model works in a thread of its own, so that the prompt can be typed into while an answer is being written; what is
asked then is answered beside it. Without a terminal each line of standard input is a question, answered in turn.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from kvorum.cli.arguments import choose_model, is_exact, load_options
from kvorum.cli.display.state import ShownRun
from kvorum.cli.planned_run import load
from kvorum.engine.budget import Budget
from kvorum.errors import BadRequest
from kvorum.wording import count, harmless, wrapped

if TYPE_CHECKING:
    from argparse import Namespace

    from prompt_toolkit import PromptSession
    from prompt_toolkit.formatted_text import StyleAndTextTuples

    from kvorum.api import Engine
    from kvorum.harness.conversation import Talk, TalkTurn
    from kvorum.runs.run import Run
    from kvorum.sampling.sampling import Sampling
    from kvorum.store.kept_blocks import KeptBlocks

HELP = """A line is a question; ask on while an answer is being written, and it is answered beside it.
/help   this
/quit   end; Ctrl-D too
Ctrl-C  stop what is being answered; once more: end"""


def chat(args: Namespace) -> int:
    """Talk until the person, or standard input, is at the end. Returns the exit code."""
    from kvorum.harness.documents import given_documents, read_documents
    from kvorum.harness.shared_text import document_texts
    from kvorum.sampling.sampling import Sampling
    from kvorum.store.kept_blocks import KeptBlocks
    from kvorum.store.kept_files import read_size

    if args.tokens < 1:
        raise BadRequest(f"tokens={args.tokens} must be at least 1.")
    _, texts, remarks = given_documents(read_documents(args.files) if args.files else [])
    kept = KeptBlocks(most=None if args.kept is None else read_size(args.kept, "--kept"))
    sampling = Sampling(temperature=args.temperature)
    model = choose_model(args.model, exact=is_exact(args))
    engine = load(model, load_options(args), ShownRun(), lambda: None, quiet=args.json)

    def talk_with(talk: Talk, control: Callable[[Run], None] | None = None) -> None:
        _run(
            engine,
            talk,
            document_texts(texts, remarks),
            tokens=args.tokens,
            seed=args.seed,
            sampling=sampling,
            kept=kept,
            control=control,
        )

    for name, remark in remarks.items():
        print(harmless(f"{name}: {remark}"), file=sys.stderr)
    if args.json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        talk_with(Lines(as_json=args.json))
        return 0
    return _in_terminal(talk_with, list(texts))


def _run(
    engine: Engine,
    talk: Talk,
    texts: dict[str, str],
    *,
    tokens: int,
    seed: int | None,
    sampling: Sampling,
    kept: KeptBlocks,
    control: Callable[[Run], None] | None,
) -> None:
    """Let ``talk`` converse, as a run of a program that nobody else needs."""
    from kvorum.harness.conversation import converse
    from kvorum.runs.program import Program

    async def function(run: Run) -> str | None:
        run.dismiss_workers()
        await converse(run, talk, texts, tokens=tokens)
        return None

    engine.run(
        Program("chat", "a conversation", function),
        "a conversation",
        budget=Budget(),
        sampling=sampling,
        seed=seed,
        kept=kept,
        control=control,
    )


class Lines:
    """A ``Talk`` of lines: a question a line from standard input, each answered before the next is read."""

    def __init__(self, *, as_json: bool = False) -> None:
        self._json, self._over = as_json, False

    def next(self, *, wait: bool) -> str | None:
        """The next line that is no blank."""
        while wait and not self._over:
            line = sys.stdin.readline()
            if not line or line.strip() == "/quit":
                self._over = True
            elif line.strip():
                return line.strip()
        return None

    def over(self) -> bool:
        """Whether standard input is at its end."""
        return self._over

    def stopped(self) -> bool:
        """Nobody can say so."""
        return False

    def show(self, turn: TalkTurn) -> None:
        """Print an answer that is complete."""
        if not turn.finish:
            return
        if self._json:
            shown = {name: getattr(turn, name) for name in ("number", "question", "text", "finish", "seconds")}
            print(json.dumps(shown, ensure_ascii=False), flush=True)
        else:
            print(f"{harmless(turn.text.strip())}\n", flush=True)

    def say(self, words: str) -> None:
        """On standard error."""
        print(f"kvorum: {harmless(words)}", file=sys.stderr, flush=True)


class Typed:
    """A ``Talk`` with a person at a terminal: filled by the prompt's thread, read by the model's."""

    def __init__(self) -> None:
        self._questions: SimpleQueue[str] = SimpleQueue()
        self._closed, self._stop = threading.Event(), threading.Event()
        self.turns: dict[int, TalkTurn] = {}
        """Those that are being answered, by number."""
        self._beside: set[int] = set()
        """Of these, and of those before, the numbers of such that had company: their answers name their questions."""
        self.waiting = 0
        self.error: BaseException | None = None

    def ask(self, question: str) -> None:
        """Put a question, and print it: the line that was typed is erased, with the half answers above it."""
        self.say(f"> {question}")
        self.waiting += 1
        self._questions.put(question)

    def stop(self) -> bool:
        """End what is being answered; False where there is nothing, or it was asked for already."""
        busy = bool(self.turns or self.waiting) and not self._stop.is_set()
        self._stop.set()
        return busy

    def close(self) -> None:
        """End the conversation."""
        self._closed.set()

    def next(self, *, wait: bool) -> str | None:
        """The next question."""
        while not self._closed.is_set():
            try:
                question = self._questions.get(timeout=0.2 if wait else 0)
            except Empty:
                if wait:
                    continue
                return None
            self._stop.clear()
            self.waiting -= 1
            return question
        return None

    def over(self) -> bool:
        """Whether the person has ended it."""
        return self._closed.is_set()

    def stopped(self) -> bool:
        """Whether the person wants no more of what is being answered; asked once for each wish."""
        wished = self._stop.is_set()
        self._stop.clear()
        return wished

    def show(self, turn: TalkTurn) -> None:
        """Keep what is being written for the prompt's drawing; print what is complete above it."""
        if not turn.finish:
            self.turns[turn.number] = turn
            if len(self.turns) > 1:
                self._beside.update(self.turns)
            return
        self.turns.pop(turn.number, None)
        label = f"[{harmless(turn.question)}] " if turn.number in self._beside else ""
        end = {"length": ", cut: --tokens gives more", "cut": ", stopped", "loop": ", cut: it went on in circles"}.get(
            turn.finish, ""
        )
        words = f"{label}{harmless(turn.text.strip()) or 'no answer'} ({turn.seconds:.1f} s{end})"
        print("\n".join(_lines(words)) + "\n")

    def say(self, words: str) -> None:
        """Above the prompt."""
        print("\n".join(_lines(harmless(words))))

    def drawing(self, status: str) -> StyleAndTextTuples:
        """What stands above the line that is typed: the ends of the answers that are being written, then the prompt."""
        room = max(1, 6 // max(1, len(self.turns)))
        shown: StyleAndTextTuples = [("fg:ansibrightblack", f"{status}\n")] if status else []
        for turn in list(self.turns.values()):
            if turn.number in self._beside:
                label = _lines(f"[{harmless(turn.question)}]")
                shown.append(("fg:ansicyan", f"{label[0]}{'…' if label[1:] else ''}\n"))
            shown += [("", f"{line}\n") for line in _lines(harmless(turn.text.strip()))[-room:]]
        return [*shown, ("bold", "> ")]


def _lines(words: str) -> list[str]:
    """The lines of a text as the terminal shows them, broken between words; its last column is left free."""
    return wrapped(words, max(20, get_terminal_size().columns) - 1)


def _in_terminal(talk_with: Callable[[Typed, Callable[[Run], None]], None], names: list[str]) -> int:
    """The prompt, over a thread in which the model answers."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.patch_stdout import patch_stdout

    talk = Typed()
    runs: list[Run] = []

    def status() -> str:
        reading = f"reading {', '.join(names)}" if names else "getting ready"
        if not runs:
            return reading
        if not runs[0].workers and talk.waiting:
            return f"{reading}: {count(runs[0].ledger.prefill)} tokens"
        return ""

    session: PromptSession[str] = PromptSession(
        lambda: talk.drawing(status()), refresh_interval=0.1, erase_when_done=True
    )

    def work() -> None:
        try:
            talk_with(talk, runs.append)
        except BaseException as error:  # told by the prompt's thread
            talk.error = error
        finally:
            talk.close()
            if (loop := session.app.loop) is not None:
                loop.call_soon_threadsafe(lambda: session.app.is_running and session.app.exit(exception=EOFError))

    thread = threading.Thread(target=work, name="kvorum-chat")
    talk.say(HELP)
    with patch_stdout():
        thread.start()
        try:
            while not talk.over():
                _typed(session, talk)
        finally:
            talk.close()
            thread.join()
    if talk.error is not None:
        raise talk.error
    return 0


def _typed(session: PromptSession[str], talk: Typed) -> None:
    """Read one line and do what it says."""
    try:
        line = session.prompt().strip()
    except KeyboardInterrupt:
        if not talk.stop():
            talk.close()
        return
    except EOFError:
        talk.close()
        return
    if line == "/quit":
        talk.close()
    elif line == "/help":
        talk.say(HELP)
    elif line.startswith("/"):
        print(f"There is no command {line.split()[0]}; there are: /help, /quit.")
    elif line:
        talk.ask(line)
