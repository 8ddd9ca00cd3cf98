"""What a further node runs: its share of a model's processes, for as long as the first node's engine lives."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from kvorum.backends.vllm.environment import environment
from kvorum.backends.vllm.executor import ended_if, shut_down
from kvorum.backends.vllm.nodes import Member, Terms
from kvorum.backends.vllm.spread import Spread
from kvorum.backends.vllm.versions import check_version, installed, versions
from kvorum.backends.vllm.workers import configure
from kvorum.errors import BadRequest, WorkersLost
from kvorum.models.fingerprint import fingerprint_of_files
from kvorum.models.load import find_folder
from kvorum.models.progress import Progress
from kvorum.wording import first_line

if TYPE_CHECKING:
    from vllm.v1.executor.multiproc_executor import MultiprocExecutor

_LOOK = 0.2


def follow(
    address: str,
    port: int,
    *,
    model: str | None = None,
    patience: float = 300.0,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
    told: Callable[[str], None] = lambda words: None,
) -> None:
    """Take part in the engine whose first node is at ``address``, until it ends.

    All else comes from there: which model, how it is cut, options of vLLM. ``model``: where it is on this machine, if
    not under the same name. ``patience``: seconds that the first node may be silent. ``told`` hears what goes on.

    Raises:
        WorkersLost: the first node is gone, or a process of this one has died.
        BadRequest, MissingExtra, UnknownName, ModelFileError: this machine cannot take part.
    """
    found = installed()
    if found is None:
        check_version(found)
    member = Member(address, port, patience)
    terms = member.terms
    if member.node >= terms["spread"]["nodes"]:
        raise BadRequest(f"The first node has its {terms['spread']['nodes']} nodes already.")
    terms["spread"] |= {"master_addr": address, "master_port": port}
    try:
        _follow(member, terms, versions(str(found)), model or terms["model"], trust_remote_code, progress, told)
    except BaseException as error:
        member.lose(f"Node {member.node} cannot go on: {first_line(error)}")
        raise
    finally:
        member.leave()


def _follow(
    member: Member,
    terms: Terms,
    here: dict[str, str],
    model: str,
    trust_remote_code: bool,
    progress: Progress | None,
    told: Callable[[str], None],
) -> None:
    from vllm.v1.executor.multiproc_executor import MultiprocExecutor

    if here != terms["versions"]:
        raise BadRequest(
            f"The first node has {_words(terms['versions'])} and this one {_words(here)}; install the same."
        )
    if terms["trust_remote_code"] and not trust_remote_code:
        raise BadRequest("The first node runs code that the model brings; say trust_remote_code here as well.")
    spread = Spread.of(**terms["spread"])
    source = find_folder(model, trust_remote_code=trust_remote_code, progress=progress)
    if fingerprint_of_files(source.folder, "") != terms["files"]:
        raise BadRequest(
            f"The files of {model} here are not those of the first node; copy them, or say where they are."
        )
    with environment(spread):
        config = configure(source, terms["dtype"], spread, trust_remote_code, member.node)
        member.came()
        told(f"node {member.node} of {spread.nodes}: {model}")
        try:
            with ended_if(member.over) as ended:
                executor = MultiprocExecutor(config, monitor_workers=False)
        except Exception as error:
            if ended:
                raise WorkersLost(f"{ended[0] or 'The first node has ended'}.") from error
            raise
    told("ready")
    try:
        _watch(member, executor)
    finally:
        shut_down(executor)


def _watch(member: Member, executor: MultiprocExecutor) -> None:
    """Until the first node ends. Raises WorkersLost."""
    while (over := member.over()) is None:
        for worker in executor.workers:
            if not worker.proc.is_alive():
                raise WorkersLost(f"{worker.proc.name} has ended with {worker.proc.exitcode}.")
        time.sleep(_LOOK)
    if over:
        raise WorkersLost(f"{over}.")


def _words(versions: dict[str, str]) -> str:
    return " and ".join(f"{name} {version}" for name, version in sorted(versions.items()))
