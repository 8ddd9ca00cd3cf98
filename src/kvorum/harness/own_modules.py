"""Python that is not kvorum's: a module by its name, or a file of one's own.

Named by whoever sits at the machine, never by a request from the network.
"""

from __future__ import annotations

import importlib
import importlib.util
import linecache
import sys
from pathlib import Path
from types import ModuleType

from kvorum.errors import ProgramError
from kvorum.wording import explain


def own_module(place: str) -> ModuleType:
    """The module of ``file.py`` or ``package.module``.

    Raises:
        ProgramError: there is none, or it fails as it is imported; the message shows its file, line and statement.
    """
    return _from_file(Path(place)) if place.endswith(".py") else _from_module(place)


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ProgramError(f"There is no file {path} to take a program from.")
    path = path.resolve()
    name = f"kvorum_own_{path.stem}_{abs(hash(path)):x}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # annotations and dataclasses look themselves up there
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # for what lies beside it, as when Python runs the file
    linecache.checkcache(str(path))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ProgramError(f"{path} cannot be imported.\n{explain(error)}") from error
    return module


def _from_module(name: str) -> ModuleType:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ProgramError(f"The module {name} cannot be imported.\n{explain(error)}") from error
