"""Running the code of a checkpoint, for callers who passed trust_remote_code=True. Nothing else in the library does.

The modules that a class needs become a package of their own, named after the hash of their sources: two revisions never
mix, a changed file is a new package, and nothing is found through sys.path that was not there before.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.abc
import importlib.util
import re
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from .._types import Snapshot
from ..checkpoint.files import safe_join
from ..errors import InvalidOptionError, MissingFrameworkError, UntrustedCodeError, UntrustedPathError
from ..hub.ref import resolve
from ..options import SourceOptions
from ..own_code import closure, read_source

__all__ = ["class_place", "load_class"]

_PLACE = re.compile(
    r"(?:(?P<repo>[A-Za-z0-9][\w.-]{0,95}(?:/[\w.-]{1,96})?)--)?(?P<module>[A-Za-z_]\w{0,99})\.(?P<name>[A-Za-z_]\w{0,99})",
    re.ASCII,
)
_PREFIX = "pretrained_remote_"
_lock = threading.RLock()


def class_place(auto_map: Any, auto_name: str, path: Any = None) -> str | None:
    """Where auto_map says the class for `auto_name` is: "modeling_x.XModel" or "org/repo--modeling_x.XModel".

    Raises:
        UntrustedPathError: it names anything but a class of a module that stands beside config.json.
    """
    if not isinstance(auto_map, Mapping) or auto_name not in auto_map:
        return None
    place = auto_map[auto_name]
    if isinstance(place, (list, tuple)) and place:  # (slow, fast) pairs, as tokenizers have them
        place = place[0]
    if not isinstance(place, str) or not _PLACE.fullmatch(place) or ".." in place or place.count("--") > 1:
        raise UntrustedPathError(
            f"auto_map: {auto_name} is {place!r:.200}; it must be module.Class, with the module beside config.json",
            key="auto_map",
            path=path,
        )
    return place


def load_class(
    place: str,
    auto_map: Mapping[str, Any],
    snapshot: Snapshot,
    source: SourceOptions,
    code_revision: str | None = None,
) -> type:
    """The class at `place`, run from the snapshot's files, or from the repository that `place` names.

    Args:
        place: as `class_place` gives it. auto_map: the whole of it: what it names together is one package.
        snapshot: the checkpoint. source: how it was found; a token goes to the repository of the code as well.
        code_revision: branch, tag or commit of the code, where that is a repository of its own.

    Raises:
        UntrustedCodeError: a file is missing, or no Python. MissingFrameworkError: packages that it imports are not
            installed; names all. InvalidOptionError: the module has no such class.
    """
    match = _PLACE.fullmatch(place)
    assert match is not None
    if match["repo"] and match["repo"] != snapshot.name:
        snapshot = resolve(match["repo"], replace(source, revision=code_revision, subfolder=""))
    sources = _closure(snapshot, match["module"])
    together = dict(sources)
    for other in sorted({str(value) for value in auto_map.values()} - {place}):
        beside = _PLACE.fullmatch(other)
        if beside is not None and beside["repo"] == match["repo"] and f"{beside['module']}.py" in snapshot.names():
            together |= _closure(snapshot, beside["module"])
    _check_packages(sources, snapshot.name)
    module = _run(sources, together, match["module"], lambda name: str(_path(snapshot, name)))
    found = vars(module).get(match["name"])
    if not isinstance(found, type):
        raise InvalidOptionError(f"{snapshot.name}: {match['module']}.py has no class {match['name']}", key="auto_map")
    return found


def _closure(snapshot: Snapshot, module: str) -> dict[str, str]:
    names = frozenset(snapshot.names())
    try:
        return closure(module, lambda name: read_source(_path(snapshot, name)), names.__contains__)
    except InvalidOptionError as error:
        raise UntrustedCodeError(f"{snapshot.name}: {error}", key="auto_map", path=snapshot.name) from None


def _path(snapshot: Snapshot, name: str) -> Path:
    """Where a file of the snapshot is; a link may not lead out of a folder, but for the cache it belongs to."""
    return snapshot.path(name) if snapshot.folder is None else safe_join(snapshot.folder, name)


def _check_packages(sources: Mapping[str, str], name: str) -> None:
    """Complains of all packages at once that the code imports at its top and that are not here."""
    wanted = {package for text in sources.values() for package in _top_packages(ast.parse(text))}
    missing = sorted(package for package in wanted if not _is_installed(package))
    if missing:
        raise MissingFrameworkError(
            f"the code of {name} imports packages that are not installed: pip install {' '.join(missing)}",
            key=missing[0],
        )


def _top_packages(tree: ast.Module) -> set[str]:
    """Packages imported by statements of the module itself, not inside of a function, an if or a try."""
    found = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.partition(".")[0])
    return found


def _is_installed(package: str) -> bool:
    try:
        return package in sys.modules or importlib.util.find_spec(package) is not None
    except ValueError:  # a module without a spec, such as __main__
        return True


class _Source(importlib.abc.ExecutionLoader):
    """One module out of a text that was read and hashed, so that what runs is what was looked at."""

    def __init__(self, text: str, path: str) -> None:
        self.text, self.path = text, path

    def get_source(self, fullname: str) -> str:
        """The text."""
        return self.text

    def get_filename(self, fullname: str) -> str:
        """Where it was read."""
        return self.path


def _run(
    sources: Mapping[str, str], together: Mapping[str, str], start: str, path_of: Callable[[str], str]
) -> ModuleType:
    """Runs the modules of one closure, each once in a process however often it is asked for.

    `together` is all that makes the package what it is; a config is then the same class for every model beside it.
    """
    digest = hashlib.sha256()
    for name, text in sorted(together.items()):
        for part in (name, text):
            raw = part.encode("utf-8", "surrogatepass")
            digest.update(len(raw).to_bytes(8, "little") + raw)
    package = _PREFIX + digest.hexdigest()[:24]
    with _lock:
        if package not in sys.modules:
            parent = ModuleType(package)
            parent.__path__ = []  # a package, and one in which nothing is found that is not put there
            sys.modules[package] = parent
        for name in sources:
            _run_one(package, name, sources, path_of)
        return sys.modules[f"{package}.{start}"]


def _run_one(package: str, name: str, sources: Mapping[str, str], path_of: Callable[[str], str]) -> None:
    stem = name.removesuffix(".py")
    full = f"{package}.{stem}"
    if full in sys.modules:
        return
    loader = _Source(sources[name], path_of(name))
    spec = importlib.util.spec_from_loader(full, loader, origin=loader.path)
    assert spec is not None
    spec.has_location = True
    module = importlib.util.module_from_spec(spec)
    sys.modules[full] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[full]
        raise
    setattr(sys.modules[package], stem, module)
