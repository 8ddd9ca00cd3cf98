"""Where a run works: at the top, or inside another run, behind one of its views.

The one place that knows how workers and blocks of a run inside another are called, and what stands before its views.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from kvorum.kv import Gap, Span, View


class Scope:
    """What stands before every view of a run (``before``), and before the names of its workers (``label``).

    At the top both are empty; inside another run the label ends in "/".
    """

    def __init__(self, label: str = "", before: Sequence[Span | Gap] = ()) -> None:
        self.label = label
        self.before = tuple(before)
        self._whole: WeakKeyDictionary[View, View] = WeakKeyDictionary()

    @property
    def nested(self) -> bool:
        """Whether it is inside another run."""
        return bool(self.label)

    def name(self, name: str) -> str:
        """A worker's or block's name as traces and blocks have it."""
        return self.label + name

    def view(self, view: View) -> View:
        """A view with what stands before it; the same object for the same view."""
        if not self.nested:
            return view
        if view not in self._whole:
            self._whole[view] = View(*self.before, *view.items)
        return self._whole[view]

    def inside(self, view: View, name: str) -> Scope:
        """The scope of a run called ``name`` behind ``view``, whose last block is seen as far as it is written now."""
        whole = self.view(view)
        return Scope(f"{self.label}{name}/", whole.fork(len(whole)).items)
