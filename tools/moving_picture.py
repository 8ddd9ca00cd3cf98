"""The moving picture of the README: a run is held, one worker is told a fact, and the other one uses it.

python tools/moving_picture.py make docs/images/told.jsonl --seed 1
python tools/moving_picture.py draw docs/images/told.jsonl docs/images/told.gif

`make` is a real run of `hogwild` with two workers on qwen2.5-coder-1.5b: after tick 30 it is held at its gate, Bob is
told the fact by the command that the page and the API send too, and it goes on. `draw` shows its trace as it is; it
refuses one in which nobody but Bob wrote the word that only the fact can have brought. Needs Chromium and Playwright.

Chosen: with seeds 0 and 1 and the default rules Alice writes Pepper77 both times, and 1 is shorter; with the published
rules, same seeds, she only repeats the fact. `make --untold` is the same run without the fact: it ends with "cat77".
"""

from __future__ import annotations

import argparse
import asyncio
import io
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from rich.text import Text
from shot import state_at, svg

from kvorum import Budget, Engine, programs
from kvorum.lab.measure.coordination import spoken
from kvorum.lab.measure.worker_text import worker_texts
from kvorum.runs.run import Run
from kvorum.runs.steering import Command
from kvorum.store.events import Event
from kvorum.store.traces import read

PROBLEM = "The password of the library's door is the name of the librarian's cat followed by 77. What is the password?"
FACT = "The librarian's cat is called Pepper."
WORD = "Pepper77"
HELD = 30
"""Ticks that are done when the run is held."""
COLUMNS, ROWS, WIDE = 110, 13, 900
"""Of the picture: characters across and down, without the caption, and pixels across."""
STEP, PAUSE, LAST = 160, 2600, 4500
"""Milliseconds that a frame stands: of the run, of something to read, and the last one."""


@dataclass(frozen=True, slots=True)
class Told:
    """Who was told what, after how many ticks, and who wrote its word first, in which tick.

    ``used`` and ``end`` count ticks done, as the footer of the panes does.
    """

    worker: str
    fact: str
    held: int
    by: str
    used: int
    end: int

    @classmethod
    def of(cls, events: Sequence[Event], word: str) -> Told:
        """What a trace says of it. Raises SystemExit where nobody was told anything, or nobody else used it after."""
        said = next((e for e in events if e["event"] == "command" and e["kind"] == "say"), None)
        held = None if said is None else spoken(events, said["text"])
        if said is None or held is None:
            raise SystemExit("Nobody is told anything in this trace; make one with `moving_picture.py make`.")
        firsts = {lane.name: lane.first(word) for lane in worker_texts(events) if lane.name != said["worker"]}
        found = [(tick, name) for name, tick in firsts.items() if tick is not None]
        if not found or min(found)[0] <= held:
            raise SystemExit(f"Nobody but {said['worker']} writes {word!r} after it was told; try another seed.")
        used, by = min(found)
        end = max(event["n"] for event in events if event["event"] == "tick") + 1
        return cls(said["worker"], said["text"].strip(), held, by, used + 1, end)

    def caption(self, ticks: int) -> str:
        """What happens when so many ticks are done."""
        if ticks < self.held:
            return f"tick {ticks}: nobody knows the name of the cat"
        if ticks < self.used:
            return f"tick {ticks}: {self.worker} was told the name, at tick {self.held}; {self.by} was not"
        return f"tick {self.used}: {self.by} uses what {self.worker} was told"


def frames(told: Told) -> Iterator[tuple[int, str, int]]:
    """Ticks done, caption, and milliseconds, frame by frame."""
    for ticks in range(1, told.held):
        yield ticks, told.caption(ticks), STEP
    yield told.held, f"tick {told.held}: held between two ticks", PAUSE // 2
    yield told.held, f"tick {told.held}: held. You tell {told.worker}: {told.fact}", PAUSE
    for ticks in range(told.held + 1, told.used):
        yield ticks, told.caption(ticks), 4 * STEP
    yield told.used, told.caption(told.used), PAUSE
    for ticks in range(told.used + 1, told.end):
        yield ticks, told.caption(ticks), STEP
    yield told.end, told.caption(told.end), LAST


def make(trace: Path, seed: int, rules: str, untold: bool) -> None:
    """Run the team, hold it, tell Bob the fact unless it is to stay ``untold``, and let it go on."""
    running: list[Run] = []

    def listen(event: Event) -> None:
        if event["event"] == "tick" and event["n"] + 1 == HELD:
            running[0].gate.pause()
            asyncio.get_running_loop().call_later(1.0, tell)

    def tell() -> None:
        if not untold:
            running[0].commands.append(Command("say", "Bob", f" {FACT}"))
        running[0].gate.resume()

    engine = Engine.load("qwen2.5-coder-1.5b", kv_tokens=4096)
    budget = Budget(ticks=110)
    result = engine.run(
        programs.hogwild,
        PROBLEM,
        workers=2,
        budget=budget,
        seed=seed,
        trace=trace,
        listener=listen,
        control=running.append,
        rules=rules,
    )
    for worker in result.workers:
        print(f"{worker.name}: {worker.text.strip()}")
    print(f"answer: {result.answer} ({result.outcome})")


def draw(trace: Path, picture: Path, word: str) -> None:
    """The run of a trace as an animated GIF."""
    from playwright.sync_api import sync_playwright

    events = read(trace)
    told = Told.of(events, word)
    shown: list[Image.Image] = []
    lasts: list[int] = []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": WIDE, "height": WIDE})
        for ticks, caption, lasting in frames(told):
            below = [Text("\n"), Text(caption, "bold yellow", no_wrap=True)]
            drawn = svg(state_at(events, ticks), COLUMNS, ROWS, title="kvorum: two workers, one cache", below=below)
            page.set_content(
                f"<style>body{{margin:0;background:#fff}} svg{{display:block;width:{WIDE}px}}</style>{drawn}"
            )
            png = page.locator("svg").first.screenshot()
            shown.append(Image.open(io.BytesIO(png)).convert("RGB"))
            lasts.append(lasting)
        chromium.close()
    # one palette for all, so that what stands still is not stored again
    colours = shown[-1].quantize(256, Image.Quantize.MAXCOVERAGE)
    first, *rest = [image.quantize(palette=colours, dither=Image.Dither.NONE) for image in shown]
    picture.parent.mkdir(parents=True, exist_ok=True)
    first.save(picture, save_all=True, append_images=rest, duration=lasts, loop=0, optimize=True)
    print(f"{picture}: {len(shown)} frames, {picture.stat().st_size / 1000:.0f} kB; {told}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["make", "draw"])
    parser.add_argument("trace", type=Path)
    parser.add_argument("picture", type=Path, nargs="?", default=Path("docs/images/told.gif"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rules", default="short", help="of hogwild (default: short)")
    parser.add_argument("--untold", action="store_true", help="make the run without the fact, to compare")
    parser.add_argument("--word", default=WORD, help="what only the fact can have brought")
    args = parser.parse_args()
    if args.what == "make":
        make(args.trace, args.seed, args.rules, args.untold)
    else:
        draw(args.trace, args.picture, args.word)


if __name__ == "__main__":
    main()
