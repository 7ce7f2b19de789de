"""Python modules that belong to a checkpoint: which files a class needs, and the entries of config.json that name them.

Nothing here runs any of it; that is `auto/remote_code.py`, and only where the caller trusts the code.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .checkpoint.files import open_regular, read_up_to
from .errors import InvalidOptionError, PretrainedError, ResourceLimitError, SaveError, UntrustedCodeError

__all__ = ["auto_map_of", "check_auto_class", "closure", "module_file", "read_source", "sources_of"]

MAX_SOURCE = 4 << 20  # bytes of one module
MAX_MODULES = 100

_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_OURS = __name__.partition(".")[0]


def module_file(module: str) -> str:
    """The file of a module that stands beside config.json.

    Raises:
        ValueError: it is no plain name.
    """
    if not _MODULE.fullmatch(module):
        raise ValueError(f"{module!r:.100} is no plain module name")
    return f"{module}.py"


def read_source(path: Path, error: type[PretrainedError] = UntrustedCodeError) -> str:
    """The text of a module.

    Raises:
        PretrainedError: as `error`, where it is missing, no regular file or not UTF-8. ResourceLimitError: too long.
    """
    fd = open_regular(path, max_bytes=MAX_SOURCE, error=error, missing=error)
    try:
        raw = read_up_to(fd, MAX_SOURCE)
    finally:
        os.close(fd)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise error(f"{path}: is not Python source in UTF-8", path=path, reason="not UTF-8") from None


def closure(start: str, read: Callable[[str], str], has: Callable[[str], bool]) -> dict[str, str]:
    """File name → text of a module and of all that it imports from beside itself, the deepest first.

    Args:
        start: name of the first module.
        read: file name → text. has: whether there is a file of that name.

    Raises:
        InvalidOptionError: a module is no Python, or imports from outside of its own folder by a relative name.
        ResourceLimitError: too many modules.
    """
    found: dict[str, str] = {}
    begun: set[str] = set()

    def visit(module: str) -> None:
        if module in begun:
            return
        begun.add(module)
        if len(begun) > MAX_MODULES:
            raise ResourceLimitError(f"{start}.py imports more than {MAX_MODULES} modules", limit=MAX_MODULES)
        name = module_file(module)
        text = read(name)
        for other in _relative_imports(text, name, has):
            visit(other)
        found[name] = text

    visit(start)
    return found


def _relative_imports(text: str, name: str, has: Callable[[str], bool]) -> Iterable[str]:
    """Modules beside this one that it imports: `from .x import y`, `from . import x`."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InvalidOptionError(f"{name} is no Python source: {error}", key=name) from None
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        module = node.module or ""
        if node.level > 1 or "." in module:
            raise InvalidOptionError(
                f"{name}, line {node.lineno}: a module that goes with a checkpoint imports only from beside itself "
                f"(from .name import …), not {'.' * node.level}{module}",
                key=name,
            )
        names = [module] if module else [alias.name for alias in node.names]
        for other in names:
            if not _MODULE.fullmatch(other) or not has(module_file(other)):
                raise InvalidOptionError(f"{name}, line {node.lineno}: there is no {other:.100}.py beside it", key=name)
            found[other] = None
    return found


# The way out


def check_auto_class(auto_class: Any, *, config: bool) -> str:
    """The name to register a class under: the auto class itself or its name.

    Raises:
        InvalidOptionError: it names no auto class of that kind.
    """
    name = auto_class if isinstance(auto_class, str) else getattr(auto_class, "__name__", "")
    is_right = name == "AutoConfig" if config else bool(re.fullmatch(r"(TF|Flax)?AutoModel\w*", name))
    if not is_right:
        kind = "AutoConfig" if config else "one of AutoModel, AutoModelForCausalLM, …"
        raise InvalidOptionError(f"auto_class is {kind}, not {auto_class!r:.80}", key="auto_class")
    return name


def auto_map_of(*classes: type) -> dict[str, str]:
    """The auto_map of registered classes: {"AutoModel": "modeling_x.XModel"}; a config goes with its model."""
    found = {}
    for cls in _registered(classes):
        name = getattr(cls, "_auto_class", None) or "AutoConfig"
        found[name] = f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}"
    return found


def sources_of(*classes: type) -> dict[str, str]:
    """File name → text of what the registered ones among `classes` are written in.

    Raises:
        SaveError: two modules have one name and are not the same; a source cannot be read.
        InvalidOptionError: a module imports what does not lie beside it.
    """
    found: dict[str, str] = {}
    for cls in _registered(classes):
        folder = Path(inspect.getfile(cls)).parent
        module = cls.__module__.rpartition(".")[2]
        here = closure(
            module,
            lambda name, folder=folder: read_source(folder / name, SaveError),  # type: ignore[misc]
            lambda name, folder=folder: (folder / name).is_file(),  # type: ignore[misc]
        )
        for name, text in here.items():
            if found.setdefault(name, text) != text:
                raise SaveError(f"cannot save the code of {cls.__name__}: there are two modules {name}", path=name)
    return found


def _registered(classes: Iterable[type]) -> list[type]:
    """Those whose code is to be saved: registered ones, and the configs that go with them, unless they are ours."""
    chosen = [cls for cls in classes if getattr(cls, "_auto_class", None)]
    if chosen:  # nothing could load a model whose config nobody knows
        chosen = [cls for cls in classes if cls in chosen or not cls.__module__.startswith(f"{_OURS}.")]
    return [cls for cls in chosen if _has_source(cls)]


def _has_source(cls: type) -> bool:
    module = sys.modules.get(cls.__module__)
    if cls.__module__ != "__main__" and getattr(module, "__file__", None) and "<locals>" not in cls.__qualname__:
        return True
    where = "in __main__" if cls.__module__ == "__main__" else "inside a function" if module else "in no file"
    warnings.warn(
        f"the code of {cls.__name__} is not saved with the checkpoint: it is defined {where}; put it into a module",
        UserWarning,
        stacklevel=2,
    )
    return False
