"""The house rules of docs and design, checked on the source itself: floors, caps and banned habits."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "pretrained"

# Packages and modules by floor: each may import its own floor and those below, but for the strangers.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "options", "source_options", "push_options", "report", "_types"}),
    frozenset({"hub"}),
    frozenset(
        {
            "configuration",
            "configuration_fields",
            "configuration_file",
            "configuration_input",
            "configuration_labels",
            "own_code",
            "saving_texts",
            "generation",
            "checkpoint",
            "quantization",
        }
    ),
    frozenset(
        {
            "loading",
            "loading_config",
            "saving",
            "saving_files",
            "saving_place",
            "saving_together",
            "backend",
            "building",
            "call_inputs",
            "module_config",
            "tying",
            "adapters",
            "head_config",
            "output",
            "pruning",
            "rotary",
            "sizes",
        }
    ),
    frozenset({"pt", "tf", "flax"}),
    frozenset({"models"}),
    frozenset({"auto"}),
    frozenset({"serve"}),
    frozenset(
        {
            "any_module",
            "cli",
            "__init__",
            "__main__",
            "modeling_utils",
            "modeling_outputs",
            "configuration_utils",
            "pytorch_utils",
            "modeling_flax_utils",
            "modeling_flax_outputs",
            "modeling_tf_utils",
            "modeling_tf_outputs",
        }
    ),
)
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}
STRANGERS = frozenset(
    {
        frozenset({"hub", "checkpoint"}),
        *(frozenset({a, b}) for a in ("pt", "tf", "flax") for b in ("pt", "tf", "flax") if a != b),
    }
)

MAX_FILE, MAX_FUNCTION, MAX_METHODS = 400, 60, 20
MAX_FACADE_METHODS, MAX_FACADE_BODY = 45, 12
FACADES = frozenset({"PreTrainedModel", "PretrainedConfig", "FlaxPreTrainedModel", "TFPreTrainedModel"})

FRAMEWORKS = frozenset({"torch", "jax", "jaxlib", "flax", "tensorflow", "keras", "transformers"})
CODE_RUNNERS = frozenset(
    {"pickle", "cPickle", "_pickle", "marshal", "dill", "cloudpickle", "shelve", "joblib", "yaml", "code", "runpy"}
)
BANNED_CALLS = frozenset({"eval", "exec", "compile", "hasattr", "__import__"})
FORBIDDEN_NAMES = frozenset({"manager", "handler", "helper", "utils", "process", "data", "info"})

SOURCES = sorted(ROOT.rglob("*.py"))


def where(path: Path) -> str:
    """The top name that a file belongs to: its package, or itself."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_places(path: Path, tree: ast.Module) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and dotted parts, relative to the package, of each import from it, wherever in the file it stands."""
    here = path.relative_to(ROOT).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - node.level + 1]
            tail = tuple((node.module or "").split(".")) if node.module else ()
            for alias in node.names:
                yield node.lineno, (*base, *tail, alias.name)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pretrained":
            yield node.lineno, (*(node.module or "").split(".")[1:], node.names[0].name)


def foreign_imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of each import from another package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.lineno, node.module


def at_module_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements that run when the module is imported; not those under TYPE_CHECKING."""
    todo: list[ast.stmt] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        todo += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
        todo += [stmt for handler in getattr(node, "handlers", ()) for stmt in handler.body]


def num_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    first = node.body[0]
    is_doc = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    doc = (first.end_lineno or 0) - first.lineno + 1 if is_doc else 0
    return (node.end_lineno or 0) - node.lineno + 1 - doc


def floor_complaints(path: Path, tree: ast.Module) -> Iterator[str]:
    own = where(path)
    if own not in FLOOR_OF:
        yield f"{own} has no floor: put it into FLOORS"
        return
    family = path.relative_to(ROOT).parts[1] if own == "models" else ""
    for line, parts in imported_places(path, tree):
        other = parts[0]
        if other not in FLOOR_OF:
            if other != "__version__":
                yield f"{line}: {other} has no floor"
        elif FLOOR_OF[other] > FLOOR_OF[own]:
            yield f"{line}: {own} may not import {other}, which is higher"
        elif frozenset({own, other}) in STRANGERS:
            yield f"{line}: {own} and {other} never meet"
        elif other == "models" == own and len(parts) > 1 and not (parts[1].startswith("_") or parts[1] == family):
            yield f"{line}: the family {family} may not import the family {parts[1]}"


def size_complaints(text: str, tree: ast.Module) -> Iterator[str]:
    if (lines := text.count("\n")) > MAX_FILE:
        yield f"{lines} lines; the cap is {MAX_FILE}"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and (size := num_lines(node)) > MAX_FUNCTION:
            yield f"{node.lineno}: {node.name} has {size} lines; the cap is {MAX_FUNCTION}"
        elif isinstance(node, ast.ClassDef):
            methods = [item for item in node.body if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef))]
            cap = MAX_FACADE_METHODS if node.name in FACADES else MAX_METHODS
            if len(methods) > cap:
                yield f"{node.lineno}: {node.name} has {len(methods)} methods; the cap is {cap}"
            for method in methods if node.name in FACADES else ():
                # A constructor lists the attributes there are; every other method is a sentence that calls a function.
                if method.name != "__init__" and (size := num_body_lines(method)) > MAX_FACADE_BODY:
                    yield f"{method.lineno}: {node.name}.{method.name} has a body of {size} lines: call a function"


def num_body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body alone."""
    first = node.body[0]
    is_doc = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    body = node.body[1:] if is_doc else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def habit_complaints(path: Path, tree: ast.Module) -> Iterator[str]:
    in_cli = where(path) == "cli"
    for node in ast.walk(tree):
        match node:
            case ast.Global():
                yield f"{node.lineno}: global"
            case ast.Call(func=ast.Name(id="print")) if not in_cli:
                yield f"{node.lineno}: print()"
            case ast.Call(func=ast.Name(id=name)) if name in BANNED_CALLS:
                yield f"{node.lineno}: {name}()"
            case ast.Call(func=ast.Attribute(value=ast.Name(id="kwargs"), attr="pop")):
                yield f"{node.lineno}: kwargs.pop()"
            case ast.ExceptHandler(type=kind, body=body):
                broad = kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException"))
                if broad and all(isinstance(stmt, (ast.Pass, ast.Continue)) for stmt in body):
                    yield f"{node.lineno}: an exception of any kind is passed over"
            case ast.Call(
                func=ast.Attribute(attr="basicConfig" | "addHandler" | "set_default_dtype" | "set_default_device")
            ) if not in_cli:
                yield f"{node.lineno}: global state of somebody else"


def danger_complaints(path: Path, tree: ast.Module) -> Iterator[str]:
    """Whatever could run code out of a file, wherever it stands."""
    in_cli = where(path) == "cli"  # its words are the caller's own
    for line, name in foreign_imports(tree):
        if name.split(".")[0] in CODE_RUNNERS:
            yield f"{line}: import of {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            owner = ast.unparse(node.func.value)
            if owner == "torch" and node.func.attr == "load" and not is_constant(keywords.get("weights_only"), True):
                yield f"{node.lineno}: torch.load without weights_only=True"
            if (
                owner in ("np", "numpy")
                and node.func.attr == "load"
                and not is_constant(keywords.get("allow_pickle", ast.Constant(False)), False)
            ):
                yield f"{node.lineno}: np.load with allow_pickle"
            if owner == "os" and node.func.attr in ("system", "popen"):
                yield f"{node.lineno}: os.{node.func.attr}"
            any_name = bool(node.args) and isinstance(node.args[0], ast.Name)
            if owner == "importlib" and node.func.attr == "import_module" and any_name and not in_cli:
                yield f"{node.lineno}: a module of any name is imported"


def is_constant(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def framework_complaints(path: Path, tree: ast.Module) -> Iterator[str]:
    own = where(path)
    floor = FLOOR_OF.get(own, 0)
    if floor <= 3:
        for line, name in foreign_imports(tree):
            if name.split(".")[0] in FRAMEWORKS:
                yield f"{line}: floor {floor} imports {name}"
    elif own in ("auto", "cli", "__init__", "__main__") or path.name in ("family.py", "_family.py", "_rope.py"):
        top = ast.Module(
            body=[s for s in at_module_level(tree) if isinstance(s, (ast.Import, ast.ImportFrom))], type_ignores=[]
        )
        for line, name in foreign_imports(top):
            if name.split(".")[0] in FRAMEWORKS:
                yield f"{line}: {name} is imported when the module is"
        for node in top.body:
            if (
                isinstance(node, ast.ImportFrom)
                and node.level
                and (node.module or "").split(".")[0] in ("pt", "tf", "flax")
            ):
                yield f"{node.lineno}: a framework's package is imported when the module is"


def name_complaints(path: Path, tree: ast.Module) -> Iterator[str]:
    """Words that say nothing, in names of modules, classes and functions."""
    for part in path.relative_to(ROOT).with_suffix("").parts:
        if FORBIDDEN_NAMES & set(part.split("_")) and part not in (
            "module_utils",
            "modeling_utils",
            "configuration_utils",
            "pytorch_utils",
            "modeling_flax_utils",
            "modeling_tf_utils",
        ):
            yield f"the name {part}"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name != "ModuleUtilsMixin":
            words = set(node.name.lower().split("_")) if isinstance(node, ast.FunctionDef) else words_of(node.name)
            if wrong := words & {"manager", "helper", "utils", "do"}:
                yield f"{node.lineno}: the name {node.name} ({', '.join(wrong)})"


def words_of(name: str) -> set[str]:
    spaced = "".join(f" {c.lower()}" if c.isupper() else c for c in name)
    return set(spaced.split())


def export_complaints(path: Path, tree: ast.Module) -> Iterator[str]:
    if path.name in ("__init__.py", "__main__.py"):
        return
    declared = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
    ]
    if not declared:
        yield "no __all__"
        return
    listed = {item.value for item in ast.walk(declared[0]) if isinstance(item, ast.Constant)}
    defined = {
        node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    }
    defined |= {
        n.id for node in tree.body for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    defined |= {
        alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    for name in sorted(listed - defined):
        yield f"__all__ lists {name}, which is not defined"


def complaints_of(path: Path, text: str) -> list[str]:
    tree = ast.parse(text)
    return [
        *floor_complaints(path, tree),
        *size_complaints(text, tree),
        *habit_complaints(path, tree),
        *danger_complaints(path, tree),
        *framework_complaints(path, tree),
        *name_complaints(path, tree),
        *export_complaints(path, tree),
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_house(path: Path) -> None:
    complaints = complaints_of(path, path.read_text(encoding="utf-8"))
    assert not complaints, "\n".join(complaints)


HEAD = "__all__ = []\n"


@pytest.mark.parametrize(
    ("place", "text", "complaint"),
    [
        ("checkpoint/x.py", "from ..hub import ref", "never meet"),
        ("checkpoint/x.py", "from ..hub.ref import resolve", "never meet"),
        ("checkpoint/formats/x.py", "def f():\n    from ... import loading", "which is higher"),
        ("errors.py", "from .hub.ref import resolve", "which is higher"),
        ("pt/x.py", "from ..models.bert import family", "which is higher"),
        ("pt/x.py", "from ..flax import layers", "never meet"),
        ("models/bert/x.py", "from ..llama.modeling_llama import LlamaModel", "may not import the family llama"),
        ("nowhere/x.py", "", "has no floor"),
        ("pt/x.py", "#\n" * 400, "the cap is 400"),
        ("pt/x.py", "def f():\n" + "    x = 1\n" * 60, "the cap is 60"),
        ("pt/x.py", "class A:\n" + "".join(f"    def f{i}(self): ...\n" for i in range(21)), "the cap is 20"),
        ("pt/x.py", "class PreTrainedModel:\n    def f(self):\n" + "        x = 1\n" * 13, "call a function"),
        ("pt/x.py", "def f():\n    global x", "global"),
        ("pt/x.py", "print(1)", "print()"),
        ("pt/x.py", "hasattr(1, 'x')", "hasattr()"),
        ("pt/x.py", "eval('1')", "eval()"),
        ("pt/x.py", "kwargs.pop('x')", "kwargs.pop()"),
        ("pt/x.py", "try:\n    f()\nexcept Exception:\n    pass", "passed over"),
        ("pt/x.py", "try:\n    f()\nexcept:\n    pass", "passed over"),
        ("pt/x.py", "def f():\n    import pickle", "import of pickle"),
        ("pt/x.py", "from yaml import load", "import of yaml"),
        ("pt/x.py", "torch.load(f)", "torch.load"),
        ("pt/x.py", "torch.load(f, weights_only=False)", "torch.load"),
        ("pt/x.py", "np.load(f, allow_pickle=True)", "np.load"),
        ("pt/x.py", "torch.set_default_dtype(x)", "global state"),
        ("pt/x.py", "importlib.import_module(name)", "any name"),
        ("checkpoint/x.py", "def f():\n    import torch", "floor 2 imports torch"),
        ("auto/x.py", "import torch", "when the module is"),
        ("auto/x.py", "from ..pt.backend import TorchBackend", "when the module is"),
        ("pt/file_utils.py", "", "the name file_utils"),
        ("pt/x.py", "class FileManager: ...", "the name FileManager"),
    ],
)
def test_each_rule_finds_its_fault(place: str, text: str, complaint: str) -> None:
    found = complaints_of(ROOT / place, HEAD + text + "\n")
    assert any(complaint in line for line in found), found


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("auto/x.py", "def f():\n    from ..pt.backend import TorchBackend"),
        ("pt/x.py", "import torch\ntorch.load(f, weights_only=True)"),
        ("cli/x.py", "print(1)"),
        ("pt/x.py", "try:\n    f()\nexcept OSError:\n    pass"),
        ("models/bert/x.py", "from .._rope import adopt_rope_parameters\nfrom .configuration_bert import BertConfig"),
        ("loading.py", "from .hub.ref import resolve\nfrom .checkpoint.find import settle"),
    ],
)
def test_what_is_allowed(place: str, text: str) -> None:
    assert complaints_of(ROOT / place, HEAD + text + "\n") == []


def test_every_module_needs_an_export_list() -> None:
    assert complaints_of(ROOT / "pt/x.py", "x = 1\n") == ["no __all__"]
    assert complaints_of(ROOT / "pt/x.py", "__all__ = ['y']\n") == ["__all__ lists y, which is not defined"]
