"""An ARM Python on an x86-64 Linux, in build/arm: Debian's, emulated by qemu, with torch and what the tests need.

Nothing of the system is changed: packages are fetched into a folder of their own and unpacked there, not installed.
Needs Debian or Ubuntu with qemu-user-static and g++-aarch64-linux-gnu; `lacking` says which of it is missing. Emulated
times say nothing about speed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

TREE = Path(__file__).resolve().parents[1]
HERE = TREE / "build" / "arm"
ROOT, SITE, APT = HERE / "root", HERE / "site", HERE / "apt"
NEEDED = {"qemu-aarch64-static": "qemu-user-static", "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu"}
TORCH = "torch==2.10.0"  # the last whose ARM build on PyPI needs no CUDA
TOOLCHAIN = """set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
"""


def lacking() -> str | None:
    """A sentence that says what this machine lacks for an emulated ARM Python, or None."""
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        return "An emulated ARM Python needs the packages of Debian or Ubuntu, and here is no apt-get."
    missing = [package for command, package in NEEDED.items() if not shutil.which(command)]
    return f"Missing here: apt-get install {' '.join(missing)}" if missing else None


def prepare() -> None:
    """Fetch Python and packages, where build/arm has none yet; half a gigabyte, some minutes."""
    done = HERE / ".ready"
    if done.exists():
        return
    for folder in (ROOT, SITE):
        shutil.rmtree(folder, ignore_errors=True)
    _unpack_python()
    _install_packages()
    done.touch()


def run(
    arguments: Sequence[str], *, cpu: str = "max", package: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the emulated Python with kvorum's source and the unpacked wheel in the folder `package` on its path.

    `cpu` is a processor of qemu's: "max" has dotprod and i8mm, "cortex-a76" dotprod, "cortex-a72" neither.
    """
    path = os.pathsep.join(map(str, (TREE / "src", package, SITE)))
    command = ["qemu-aarch64-static", "-cpu", cpu, "-L", str(ROOT), str(_python()), *arguments]
    return subprocess.run(
        command, cwd=TREE, env={**os.environ, "PYTHONPATH": path, **(environment or {})}, text=True, capture_output=True
    )


def wheel(native: Path, to: Path) -> Path:
    """Cross compile the distribution in the folder `native` into a wheel in the folder `to`.

    Raises:
        SystemExit: the Python that runs this is not the emulated one's version.
    """
    version = _python().name.removeprefix("python")
    if version != f"{sys.version_info.major}.{sys.version_info.minor}":
        raise SystemExit(f"Debian's ARM Python is {version} here: run this with Python {version}.")
    file = HERE / "toolchain.cmake"
    file.write_text(TOOLCHAIN)
    shutil.rmtree(to, ignore_errors=True)
    include = ROOT / "usr" / "include"
    defines = {
        "CMAKE_TOOLCHAIN_FILE": file,
        "Python_INCLUDE_DIR": include / f"python{version}",
        "CMAKE_CXX_FLAGS": f"-idirafter {include}",
    }
    settings = [part for name, value in defines.items() for part in ("-C", f"cmake.define.{name}={value}")]
    suffix = f".cpython-{version.replace('.', '')}-aarch64-linux-gnu.so"
    cross = {"SETUPTOOLS_EXT_SUFFIX": suffix, "_PYTHON_HOST_PLATFORM": "linux-aarch64"}
    _call([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", to, native, *settings], cross)
    return next(to.glob("*.whl"))


def _python() -> Path:
    return next(path for path in (ROOT / "usr" / "bin").glob("python3.*") if "-" not in path.name)


def _unpack_python() -> None:
    for folder in (APT / "lists" / "partial", APT / "cache" / "archives" / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",
        "Dir::State::lists": APT / "lists",
        "Dir::State::status": "/dev/null",  # nothing is installed: what Python needs comes along
        "Dir::Cache": APT / "cache",
        "Debug::NoLocking": "1",
    }
    apt = ["apt-get", "-qq", *(part for name, value in options.items() for part in ("-o", f"{name}={value}"))]
    _call([*apt, "update"])
    packages = ("python3-minimal", "libpython3-dev", "libstdc++6", "libgomp1")
    _call([*apt, "-y", "--no-install-recommends", "--download-only", "install", *packages])
    for file in sorted((APT / "cache" / "archives").glob("*.deb")):
        _call(["dpkg", "-x", file, ROOT])


def _install_packages() -> None:
    """What kvorum and its tests need, in the versions of this environment; torch without the CUDA that pip adds."""
    project = tomllib.loads((TREE / "pyproject.toml").read_text())["project"]
    wanted = [one for one in project["dependencies"] if not one.startswith(("torch", "accelerate"))]
    wanted += ["sympy", "fsspec", "psutil", "pytest", "pytest-timeout", "hypothesis"]
    frozen = subprocess.run([sys.executable, "-m", "pip", "freeze"], text=True, capture_output=True, check=True).stdout
    same = [line for line in frozen.splitlines() if "==" in line and "+" not in line and not line.startswith("torch")]
    constraints = HERE / "constraints.txt"
    constraints.write_text("\n".join(same))
    version = _python().name.removeprefix("python")
    platforms = [f"manylinux_2_{n}_aarch64" for n in (17, 24, 26, 27, 28, 31)] + ["manylinux2014_aarch64"]
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--target",
        str(SITE),
        "--only-binary=:all:",
        "--python-version",
        version,
    ]
    pip += [part for platform in platforms for part in ("--platform", platform)]
    _call([*pip, "-c", str(constraints), *wanted])
    _call([*pip, "--no-deps", TORCH, "accelerate"])


def _call(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        list(map(str, command)), env={**os.environ, **(environment or {})}, text=True, capture_output=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command[:4]))} ... failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
