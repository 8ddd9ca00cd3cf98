"""What worker processes read from the environment while they start: cores, and where they listen."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from kvorum.backends.vllm.spread import Spread


@contextmanager
def environment(spread: Spread) -> Iterator[None]:
    """What vLLM and torch read from the environment while workers start; as it was, afterwards.

    What somebody has set stays. On a CPU each process gets cores of its own, or its share of them where there are fewer
    cores than processes. All listen on loopback alone, or with further nodes on the address by which these are reached.
    """
    wanted = {
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_MLA_DISABLE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0" if spread.executor == "uni" else "1",
        "VLLM_CPU_OMP_THREADS_BIND": _cores(spread),
    }
    if spread.executor != "ray":
        address = own_address(spread.master_addr, spread.master_port) if spread.nodes > 1 else "127.0.0.1"
        wanted["VLLM_HOST_IP"] = address
        if (name := interface(address)) is not None:
            wanted |= {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name}
    if spread.nodes > 1:
        wanted["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # the store is there already, on the address that was given
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _cores(spread: Spread) -> str:
    if spread.executor == "uni" or not hasattr(os, "sched_getaffinity"):
        return "nobind"
    cores = sorted(os.sched_getaffinity(0))
    here = spread.ranks_here
    each = max(1, len(cores) // here)
    shares = [[cores[(rank * each + at) % len(cores)] for at in range(each)] for rank in range(here)]
    return "|".join(",".join(map(str, share)) for share in shares)


def own_address(of: str, port: int) -> str:
    """The address of this machine from which another is reached: its own loopback for loopback."""
    family = socket.AF_INET6 if ":" in of else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((of, port))  # sends nothing
        return str(probe.getsockname()[0])


def interface(address: str) -> str | None:
    """The network interface that has an IPv4 address of this machine, as in "lo" or "eth0"; None: not found."""
    if sys.platform != "linux":
        return None
    for name, addresses in psutil.net_if_addrs().items():
        if (socket.AF_INET, address) in [one[:2] for one in addresses]:
            return str(name)
    return None
