"""Facts found by questions in other words, and by a word of theirs: by words alone, and with static embeddings.

python benchmarks/memory_meaning.py FOLDER        # as model2vec writes it
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from kvorum.harness.memory.embeddings import StaticEmbeddings
from kvorum.harness.memory.memory import Memory
from kvorum.store.memory.store import MemoryStore

PAIRS = [
    ("The code of the cellar door is 4711.", "How do I get into the basement?"),
    ("Ann drives a red Toyota.", "What colour is her car?"),
    ("The train to Leeds leaves at nine.", "When does the railway go north?"),
    ("Bob is allergic to peanuts.", "Which foods must he avoid?"),
    ("The invoice of March was paid on Tuesday.", "Has the bill been settled?"),
    ("Our doctor moved to Elm Street.", "Where is the physician's office now?"),
    ("The cat is fed twice a day.", "How often does the pet eat?"),
    ("The spare key hangs behind the clock.", "Where can I find something to unlock the house?"),
    ("The meeting was moved to Friday.", "On what day do we gather?"),
    ("The router's password is on its back.", "How do I connect to the wireless network?"),
    ("The roof leaks above the bedroom.", "Where does water come in when it rains?"),
    ("Clara speaks Polish and French.", "Which languages does she know?"),
    ("The lawn is mown on Saturdays.", "When do we cut the grass?"),
    ("The shop closes at six in the evening.", "Until what hour can I buy things?"),
    ("The boiler was replaced in 2019.", "How old is the heating?"),
    ("Dan's birthday is on the fourth of May.", "When was he born?"),
    ("The contract ends in December.", "When does the agreement expire?"),
    ("The baker gives discounts on Mondays.", "When is bread cheaper?"),
    ("The children's school is on Hill Road.", "Where do the kids learn?"),
    ("The printer needs black ink.", "What supplies should I purchase for the office?"),
    ("The dentist is booked for the tenth.", "When are my teeth looked at?"),
    ("The bicycle's tyre is flat.", "What is broken on my bike?"),
    ("Grandmother lives in Bremen.", "In which city is my grandma?"),
    ("The laptop's warranty is over.", "Is the computer still covered for repairs?"),
]
"""A fact, and a question for it in other words."""
LITERAL = [
    "4711",
    "Toyota",
    "Leeds at nine",
    "Bob",
    "March invoice",
    "Elm Street doctor",
    "cat",
    "spare key",
    "Friday",
    "router",
    "roof",
    "Polish",
    "lawn",
    "six in the evening",
    "2019",
    "Dan",
    "December",
    "Mondays baker",
    "Hill Road",
    "ink",
    "dentist",
    "tyre",
    "Bremen",
    "warranty",
]
"""Words of each fact."""


def main(folder: str) -> None:
    """Print how often the fact is first, among three, among eight."""
    with TemporaryDirectory() as place:
        store = MemoryStore(Path(place) / "memory.sqlite")
        facts = [store.remember(fact).id for fact, _ in PAIRS]
        both = Memory(store, embeddings=StaticEmbeddings(Path(folder)))
        for kind, queries in (("other words", [asked for _, asked in PAIRS]), ("a word of it", LITERAL)):
            for name, recall in (("words", store.recall), ("words and meaning", both.recall)):
                found = [[entry.id for entry in recall(query, limit=8).entries] for query in queries]
                shares = [sum(fact in ids[:top] for fact, ids in zip(facts, found, strict=True)) for top in (1, 3, 8)]
                print(
                    f"{kind}, by {name}: first {shares[0]}, of three {shares[1]}, of eight {shares[2]} of {len(facts)}"
                )


main(sys.argv[1])
