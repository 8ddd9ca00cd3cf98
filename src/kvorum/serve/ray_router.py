"""Which replica a session goes to: consistent hashing over the *places* of replicas instead of over replicas.

Ray's own hashes the replicas' ids, which are drawn anew: the replica that is started for one that died would take a
third of the sessions of those that live. Here it has the dead one's place, and with it that one's sessions alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter
from ray.serve.request_router import PendingRequest, RunningReplica

PLACE, SINCE = "place", "since"
"""What a replica tells of itself as it starts: the lowest number that none of those had which lived then; the time."""


class SessionRouter(ConsistentHashRouter):
    """Each session goes to the place with the largest hash of both, so a place more or less moves only its own share.

    A request without a session goes anywhere. Nobody else is asked where a replica is full: a team's blocks are there.
    """

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """The one replica of a request, for Ray's loop that asks it until it takes the request."""
        if pending_request is None or not candidate_replicas:
            return [candidate_replicas] if candidate_replicas else []
        pending_request.routing_context.should_backoff = True
        metadata = pending_request.metadata
        session = metadata.session_id or metadata.internal_request_id
        there = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        found = places({name: replica.replica_metadata for name, replica in there.items()})
        return [[there[found[max(found, key=lambda place: _hash(place, session))]]]]


def places(told: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Replicas' ids by their places, of what each has told of itself. Where two have the same place, as may be once
    some of several were stopped, the older one keeps it and the other has one of its own.
    """
    found: dict[str, str] = {}
    for name in sorted(told, key=lambda name: (told[name][SINCE], name)):
        place = str(told[name][PLACE])
        found[place if place not in found else f"{place} {name}"] = name
    return found


def _hash(place: str, session: str) -> bytes:
    return hashlib.blake2b(f"{place}\0{session}".encode(errors="surrogatepass"), digest_size=8).digest()
