"""A memory in use: entries of one namespace, written under a policy; what models keep of an entry goes with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvorum.errors import NotAllowed
from kvorum.harness.memory.embeddings import StaticEmbeddings, fused, static_embeddings
from kvorum.harness.memory.policy import POLICIES, Policy
from kvorum.store.kept_files import KeptFiles
from kvorum.store.memory.entries import MOST_FOUND, NAMESPACE, Entry, Recalled, check_limit, check_namespace

if TYPE_CHECKING:
    from kvorum.store.memory.store import MemoryStore


class Memory:
    """One namespace of a store, and who writes it.

    Args:
        store: default the user's own (``MemoryStore()``), opened when it is first used. policy: who writes
            (``POLICIES``). who: the writer's name, which stands behind its kind in what it writes. kept: the files of
            encoded entries, which go when an entry is forgotten; default the user's own. embeddings: by which entries
            are found whose words are others than the query's; default those that $KVORUM_EMBEDDINGS names, if any.

    Raises:
        BadRequest: the namespace cannot be.
    """

    def __init__(
        self,
        store: MemoryStore | None = None,
        *,
        namespace: str = NAMESPACE,
        policy: Policy = POLICIES["person"],
        who: str = "",
        kept: KeptFiles | None = None,
        embeddings: StaticEmbeddings | None = None,
    ) -> None:
        self.namespace = check_namespace(namespace)
        self._store = store
        self.policy = policy
        self.who = who
        self.kept = KeptFiles() if kept is None else kept
        self._added = 0
        self._embeddings = embeddings

    @property
    def store(self) -> MemoryStore:
        """Where the entries are. Raises StoreFailed: it cannot be opened."""
        if self._store is None:
            from kvorum.store.memory.store import MemoryStore  # and SQLAlchemy, which a start without memory spares

            self._store = MemoryStore()
        return self._store

    def written_by(self, policy: Policy, who: str = "") -> Memory:
        """The same memory for another writer."""
        return Memory(
            self._store,
            namespace=self.namespace,
            policy=policy,
            who=who,
            kept=self.kept,
            embeddings=self._embeddings,
        )

    @property
    def embeddings(self) -> StaticEmbeddings | None:
        """By what entries are found besides their words. Raises BadRequest, MissingExtra: it cannot be loaded."""
        if self._embeddings is None:
            self._embeddings = static_embeddings()
        return self._embeddings

    @property
    def ranked_by(self) -> str:
        """By what ``recall`` finds the best, for people."""
        return self.store.ranked_by if self.embeddings is None else f"{self.store.ranked_by} and static embeddings"

    @property
    def source(self) -> str:
        """Whoever writes here, as entries say it. Raises NotAllowed: nobody does."""
        kind = self.policy.kind()
        return f"{kind}:{self.who}" if self.who else kind

    def remember(self, text: str) -> Entry:
        """Keep a text; one that is here already, word for word, is not kept twice.

        Raises:
            NotAllowed: the policy has nobody write, or no more than was written. BadRequest: the text cannot be kept.
        """
        self._check_most()
        entry = self.store.remember(text, namespace=self.namespace, source=self.source)
        self._added += 1
        return entry

    def recall(self, query: str | None = None, *, limit: int = 8) -> Recalled:
        """The entries that share words with ``query``, or with embeddings are near to it, the best first; without a
        query the newest first.

        Raises:
            BadRequest: a limit that cannot be, or embeddings. MissingExtra.
        """
        if query is None:
            return self.store.newest(namespace=self.namespace, limit=limit)
        if self.embeddings is None:
            return self.store.recall(query, namespace=self.namespace, limit=limit)
        check_limit(limit)
        words = self.store.recall(query, namespace=self.namespace, limit=MOST_FOUND)
        found = fused(words.entries, self.embeddings.near(query, self.list()))
        return Recalled(found[:limit], len(found[limit:]) + words.missing)

    def list(self) -> Sequence[Entry]:
        """All current entries, the oldest first."""
        return self.store.list(namespace=self.namespace)

    def update(self, name: str, text: str) -> Entry:
        """Put another text in the place of an entry (see ``MemoryStore.update``).

        Raises:
            NotAllowed: the policy forbids it. UnknownName: there is no such entry. BadRequest: the text cannot be kept.
        """
        self._check_most()
        entry = self.store.update(name, text, source=self.source, over=self.policy.over)
        self._added += 1
        return entry

    def forget(self, name: str) -> Sequence[Entry]:
        """Delete an entry and all whose place it took, their texts and what models have kept of them.

        Raises: as ``update``.
        """
        self.policy.kind()
        gone = self.store.forget(name, over=self.policy.over)
        for entry in gone:
            self.kept.forget(entry.id)
        return gone

    def _check_most(self) -> None:
        if self.policy.most is not None and self._added >= self.policy.most:
            raise NotAllowed(
                f"{self._added} entries were written here, and the policy {self.policy.name} has no more of them at a "
                "time; replace some, or let a person write."
            )
