"""Scripts of skills: run only where that was allowed, in a process with limits, and without the network.

The process gets a working folder of its own that is removed afterwards, an environment of a few variables, limits of
seconds, memory, output and file size, and, on Linux, name spaces of its own: no network, and no process of it outlives
it. Where name spaces cannot be had, a script is refused unless the network is allowed. It is *not* kept from reading
files of the user: a script that is not to be trusted is not to be allowed.
"""

from __future__ import annotations

import functools
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kvorum.errors import BadRequest, NotAllowed
from kvorum.harness.process_tree import end_tree
from kvorum.harness.skills.skill import Skill

_LIMITED = (
    "import os,resource as r,sys\n"
    "m,c,f=map(int,sys.argv[1:4])\n"
    "r.setrlimit(r.RLIMIT_CPU,(c,c));r.setrlimit(r.RLIMIT_FSIZE,(f,f));r.setrlimit(r.RLIMIT_CORE,(0,0))\n"
    "r.setrlimit(r.RLIMIT_AS,(m,m))\n"
    "os.execvp(sys.argv[4],sys.argv[4:])\n"
)
"""Limits of its own process, then the script in its place."""
_INTERPRETERS = {".py": (sys.executable, "-I"), ".sh": ("sh",), ".bash": ("bash",), ".js": ("node",)}
_SPACES = ("unshare", "--net", "--pid", "--fork", "--kill-child")


@dataclass(frozen=True, slots=True)
class ScriptLimits:
    """What a script may take: seconds of time, bytes of memory, of output and of a file that it writes."""

    seconds: float = 30.0
    memory: int = 1_000_000_000
    output: int = 100_000
    file: int = 50_000_000
    network: bool = False
    """Whether it may reach the network."""


LIMITS = ScriptLimits()
"""Those that hold where none are given."""


@dataclass(frozen=True, slots=True)
class ScriptResult:
    """What a script did. ``ended``: "exit" (by itself, with ``code``), "timeout" or "output" (it wrote too much);
    ``output``: what it wrote to both of its streams, as text, cut at the limit."""

    ended: str
    code: int
    output: str


def run_script(
    skill: Skill, name: str, arguments: Sequence[str] = (), *, allowed: bool, limits: ScriptLimits = LIMITS
) -> ScriptResult:
    """Run a script of a skill, by its path in the folder.

    Args:
        allowed: whether who sits at the machine has allowed scripts of this skill.

    Raises:
        NotAllowed: it is not allowed, or cannot be kept from the network here. BadRequest: there is no such script, it
            lies elsewhere, or nothing here can run it.
    """
    if not allowed:
        raise NotAllowed(f"Scripts of the skill {skill.name} are not allowed; allow them by name if you trust them.")
    if sys.platform == "win32":
        raise NotAllowed("Windows has not the limits in which scripts of skills run; run kvorum in WSL for them.")
    path = skill.path(name)
    if not path.is_relative_to((skill.folder / "scripts").resolve()):
        raise BadRequest(f"{name[:200]!r} is not in the folder scripts of the skill {skill.name}; it is not run.")
    command = [*_apart(limits), sys.executable, "-I", "-S", "-c", _LIMITED]
    command += [str(limits.memory), str(int(limits.seconds) + 1), str(limits.file), *_run_by(path), *arguments]
    with tempfile.TemporaryDirectory(prefix="kvorum-skill-") as folder:
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8"}
        environment["SKILL_FOLDER"] = str(skill.folder.resolve())
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise BadRequest(f"The script {name} cannot be run: {error}.") from None
        return _watched(process, limits)


def _watched(process: subprocess.Popen[bytes], limits: ScriptLimits) -> ScriptResult:
    """Read what it writes until it ends, or has to be ended."""
    assert process.stdout is not None
    end, ended, output = time.monotonic() + limits.seconds, "exit", bytearray()
    try:
        with process.stdout, selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                left = end - time.monotonic()
                if left <= 0 or not selector.select(left):
                    ended = "timeout"
                    break
                read = os.read(process.stdout.fileno(), 65536)
                output += read[: limits.output - len(output)]
                if not read:
                    break
                if len(output) >= limits.output:
                    ended = "output"
                    break
            if ended == "exit":
                try:
                    process.wait(max(0.0, end - time.monotonic()))
                except subprocess.TimeoutExpired:
                    ended = "timeout"
    finally:
        end_tree(process.pid)
        process.wait()
    return ScriptResult(ended, process.returncode, output.decode("utf-8", "replace"))


def _run_by(path: Path) -> Sequence[str]:
    """The command that runs a script. Raises BadRequest: nothing here can."""
    if path.suffix.lower() in _INTERPRETERS:
        program, *more = _INTERPRETERS[path.suffix.lower()]
        if shutil.which(program) is None:
            raise BadRequest(f"{path.name} needs {program}, which is not installed.")
        return [program, *more, str(path)]
    if os.access(path, os.X_OK):
        return [str(path)]
    raise BadRequest(f"{path.name} is no script that can be run: .py, .sh, .bash, .js, or an executable file.")


def _apart(limits: ScriptLimits) -> Sequence[str]:
    """What stands before a command so that it has name spaces of its own. Raises NotAllowed: there are none."""
    spaces = _spaces()
    if limits.network:
        return [word for word in spaces if word != "--net"]
    if not spaces:
        raise NotAllowed("Scripts cannot be kept from the network on this machine; allow them the network to run them.")
    return spaces


@functools.cache
def _spaces() -> Sequence[str]:
    """How name spaces are made here: as root, else as a user of one's own; () where neither can be."""
    if shutil.which("unshare") is None:
        return ()
    for more in ((), ("--map-root-user",)):
        tried = [*_SPACES, *more]
        if subprocess.run([*tried, "true"], capture_output=True, check=False, timeout=20).returncode == 0:
            return tried
    return ()
