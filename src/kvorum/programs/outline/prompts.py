"""What is asked for, how an outline is read, and how sections become one text: in kvorum's form, and as published.

The published form has the structure of the prompts of arXiv 2307.15337 (its prompts 1 and 2) in words of our own: a
skeleton of 3 to 10 points of a few words after two examples, then one request for each point, which holds the question
and the whole skeleton and is answered from the point's own words on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kvorum.sampling.grammar import Grammar

TITLE_CHARS = 80
"""The most characters of a title in kvorum's form, behind its first."""

CONTROL = "\\x00-\\x1f\\x7f"
"""Characters that no title has, line breaks among them, as a regular expression says it."""

NEXT = "\n## "
"""Where a section of kvorum's form would begin another one, it ends."""

POINTS = re.compile(r"(\d+)\.[ \t]*(\S[^\n]*)")

SKELETON = """Your task is to organize: give the skeleton of an answer to the question, not its full content, as a \
numbered list of points (1., 2., 3., and so on). A point is no full sentence but 3 to 5 words. There should be 3 to 10 \
points.

Question:
How does one get ready for a long hike?
Skeleton:
1. Choose the route.
2. Check the weather.
3. Pack water and food.
4. Break in boots.
5. Tell a friend.

Question:
What are common kinds of bread?
Skeleton:
1. Sourdough.
2. Baguette.
3. Rye bread.
4. Flatbread.
5. Brioche.
6. Pumpernickel.

Now give the skeleton for this question.
{}
Skeleton:
"""

POINT = """Your task is to go on with one point, and no other, of the whole answer to this question.

{problem}

The skeleton of the answer is

{outline}

Go on with point {number} only. Write it **very shortly**, in 1 or 2 sentences, and do not go on to other points!"""


@dataclass(frozen=True, slots=True)
class Title:
    """A line of an outline: its number and its words."""

    number: int
    words: str

    @property
    def point(self) -> str:
        """As it stands in the outline."""
        return f"{self.number}. {self.words}"

    @property
    def heading(self) -> str:
        """As a section of kvorum's form begins."""
        return f"## {self.point}\n\n"


def asked(problem: str, least: int, most: int) -> str:
    """What kvorum's form asks for: the outline and the text in one reply, of which rows write parts."""
    count = f"{least}" if least == most else f"{least} to {most}"
    return (
        f"{problem}\n\nFirst write an outline: the titles of {count} sections, numbered, one a line. Then write the "
        "sections, each under its title and about nothing else."
    )


def outline_grammar(least: int, most: int) -> Grammar:
    """An outline of so many titles: what a small model would otherwise not keep to."""
    lines = [f"{at}\\. [^\\s{CONTROL}][^{CONTROL}]{{1,{TITLE_CHARS}}}" for at in range(1, most + 1)]
    pattern = ""
    for line in reversed(lines[least:]):
        pattern = f"(\\n{line}{pattern})?"
    return Grammar.regex("\\n".join(lines[:least]) + pattern)


def titles(outline: str, most: int) -> list[Title]:
    """The numbered lines of an outline, of each number the first, at most so many."""
    found: dict[int, str] = {}
    for number, words in POINTS.findall(outline):
        found.setdefault(int(number), words.strip())
    return [Title(number, words) for number, words in list(found.items())[:most]]


def whole(sections: Sequence[tuple[Title, str]], *, published: bool) -> str:
    """The sections as one text, in order: under headings, or as published each point's words and what follows them."""
    if published:
        return "\n".join(f"{title.point} {text.strip()}".strip() for title, text in sections)
    return "\n\n".join(f"{title.heading}{text.strip()}".strip() for title, text in sections)
