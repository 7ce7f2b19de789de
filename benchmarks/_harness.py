"""Runs variants in fresh processes, one after the other in turns, and says how they compare.

A benchmark is one script with one `Bench`. It runs itself as its own child, once for each variant and repeat; variants
of a peer run in the peers' environment, so a script imports nothing at its top but this module, which needs only the
standard library.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MB = 1e6
_MARK = "RESULT "


@dataclass
class Context:
    """What a variant is told: where the data lies and how large it is to be."""

    scratch: Path
    quick: bool
    peer_python: Path | None = None


@dataclass
class Row:
    """One comparison, as it is printed. `ratio` is a median over rounds, each of which compares its own two runs."""

    what: str
    ours: str
    against: str
    theirs: str
    ratio: float | None
    target: str
    met: bool | None


@dataclass
class Variant:
    name: str
    run: Callable[[Context], dict[str, Any]]
    is_peer: bool
    is_optional: bool


@dataclass
class Results:
    """Rounds of measurements: variant → one dict for each repeat."""

    rounds: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def median(self, variant: str, key: str = "seconds") -> float:
        return statistics.median(run[key] for run in self.rounds[variant])

    def ratio(self, ours: str, theirs: str, key: str = "seconds", their_key: str | None = None) -> float:
        """Median over the rounds of ours / theirs. Both ran next to each other, so a slow minute slows both."""
        pairs = zip(self.rounds[ours], self.rounds[theirs], strict=True)
        return statistics.median(a[key] / b[their_key or key] for a, b in pairs)

    def spread(self, variant: str, key: str = "seconds") -> str:
        values = sorted(run[key] for run in self.rounds[variant])
        return f"{values[0]:.4g} to {values[-1]:.4g}"

    def has(self, variant: str) -> bool:
        return variant in self.rounds


class Bench:
    """One claim: variants, what has to be there before they run, and the judgement.

    Args:
        name: the script's name. title: a heading. memory: bytes that a run allocates or writes; they are touched and
            given back before it, because a virtual machine pays several times over for memory it returned to its host.
        repeats: rounds, and with --quick. peers: the environment that has what this one compares with.
    """

    def __init__(
        self, name: str, title: str, text: str, *, memory: int = 0, repeats: int = 7, peers: str = ".venv-peers"
    ) -> None:
        self.peers = peers
        self.name, self.title, self.text = name, title, " ".join(text.split())
        self.memory, self.repeats = memory, repeats
        self.variants: dict[str, Variant] = {}
        self.notes: list[str] = []
        self._prepare: Callable[[Context], None] = lambda context: None
        self._before: Callable[[Context, str], None] = lambda context, name: None
        self._judge: Callable[[Results, Context], Iterable[Row]] = lambda results, context: ()

    def variant(self, *, peer: bool = False, optional: bool = False) -> Callable[[Any], Any]:
        """Registers a function to be run in a fresh process; with `peer` by the peers' interpreter."""

        def register(run: Any) -> Any:
            self.variants[run.__name__] = Variant(run.__name__, run, peer, optional)
            return run

        return register

    def prepare(self, function: Any) -> Any:
        """Registers what is done once, before the first round; not timed."""
        self._prepare = function
        return function

    def before(self, function: Any) -> Any:
        """Registers what is done before each run, by the parent; not timed."""
        self._before = function
        return function

    def judge(self, function: Any) -> Any:
        """Registers what makes rows of results."""
        self._judge = function
        return function

    def main(self) -> None:
        options = _parser(self).parse_args()
        context = Context(Path(options.scratch or "."), options.quick, _python_at(options.peer_python))
        if options.variant:
            self._run_here(options.variant, context)
            return
        with scratch_folder(options.scratch) as folder:
            context.scratch = folder
            results = self._run_all(context, options)
            rows = list(self._judge(results, context))
        print_rows(self.title, rows, results)
        if options.json:
            record = {
                "name": self.name,
                "title": self.title,
                "text": self.text,
                "rows": [asdict(row) for row in rows],
                "notes": self.notes,
                "rounds": results.rounds,
                "skipped": results.skipped,
            }
            Path(options.json).write_text(json.dumps(record, indent=1))

    def _run_here(self, name: str, context: Context) -> None:
        result = self.variants[name].run(context)
        sys.stdout.flush()
        print(_MARK + json.dumps(result), flush=True)
        os._exit(0)  # taking a large process apart is nobody's claim

    def _run_all(self, context: Context, options: argparse.Namespace) -> Results:
        results = Results()
        self._prepare(context)
        names = [name for name in self.variants if not options.only or name in options.only]
        for number in range(options.repeats or (3 if options.quick else self.repeats)):
            order = [name for name in names if name not in results.skipped]
            # Every other round backwards, so that no variant always runs in the wake of the same other.
            for name in order if number % 2 == 0 else reversed(order):
                self._before(context, name)
                self._run_one(name, context, results)
        return results

    def _run_one(self, name: str, context: Context, results: Results) -> None:
        variant = self.variants[name]
        python = sys.executable if not variant.is_peer else str(context.peer_python or "")
        if not python:
            results.skipped[name] = "no environment of peers"
            return
        found, trouble = run_child(sys.modules["__main__"].__file__ or "", name, python, context)
        if found is None:
            if not variant.is_optional:
                raise SystemExit(f"{self.name}: {name} failed:\n{trouble}")
            results.skipped[name] = trouble.strip().splitlines()[-1][:200] if trouble.strip() else "failed"
            results.rounds.pop(name, None)
            print(f"  {name}: left out, {results.skipped[name]}", file=sys.stderr, flush=True)
            return
        results.rounds.setdefault(name, []).append(found)
        shown = {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}
        print(f"  {name}: {shown}", file=sys.stderr, flush=True)


def run_child(script: str, name: str, python: str, context: Context) -> tuple[dict[str, Any] | None, str]:
    """(what the variant returned, or None; what it had to say)."""
    command = [python, script, "--variant", name, "--scratch", str(context.scratch)]
    command += ["--quick"] if context.quick else []
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if done.returncode != 0 or not lines:
        return None, done.stderr or done.stdout or f"exit {done.returncode}"
    return json.loads(lines[-1].removeprefix(_MARK)), done.stderr


def _parser(bench: Bench) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=bench.text)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    parser.add_argument("--json", help="also write the result there")
    add_options(parser, bench.peers)
    return parser


def add_options(parser: argparse.ArgumentParser, peers: str = ".venv-peers") -> None:
    """The options that run.py and every script have."""
    parser.add_argument("--quick", action="store_true", help="smaller data, 3 rounds")
    parser.add_argument("--repeats", type=int, help="rounds")
    parser.add_argument("--only", nargs="*", help="run only these variants (the judgement may need others)")
    parser.add_argument("--scratch", help="folder for the data, kept; default: a temporary one, removed")
    parser.add_argument(
        "--peer-python", default=str(HERE.parent / peers / "bin/python"), help="interpreter that has the peers"
    )


def _python_at(path: str) -> Path | None:
    # Not resolved: an environment's interpreter is a link, and the link is what makes it that environment's.
    return Path(path).absolute() if path and Path(path).exists() else None


@contextmanager
def scratch_folder(path: str | None) -> Iterator[Path]:
    """The folder for data: the one given, or a temporary one that is removed."""
    if path is not None:
        Path(path).mkdir(parents=True, exist_ok=True)
        yield Path(path)
        return
    folder = Path(tempfile.mkdtemp(prefix="pretrained-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# What is printed


def versions(python: str | Path, packages: Iterable[str]) -> dict[str, str]:
    """Versions of the packages that an interpreter has."""
    code = (
        "import json,sys\nfrom importlib.metadata import version,PackageNotFoundError\nfound={}\n"
        "for name in sys.argv[1:]:\n try: found[name]=version(name)\n except PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run([str(python), "-c", code, *packages], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def machine() -> str:
    """The machine in a line: processor, cores, memory, system."""
    model = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    total = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    virtual = any("hypervisor" in line for line in _lines("/proc/cpuinfo") if line.startswith("flags"))
    cores = len(os.sched_getaffinity(0))
    kind = "virtual machine, " if virtual else ""
    return f"{kind}{model}, {cores} cores, {total / 2**20:.0f} GiB, Linux {platform.release().split('-')[0]}"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def print_rows(title: str, rows: Iterable[Row], results: Results) -> None:
    print(f"\n{title}")
    for row in rows:
        ratio = "" if row.ratio is None else f"  ratio {row.ratio:.2f}"
        compared = "" if row.against == "–" else f"  |  {row.against}: {row.theirs}{ratio}"
        print(f"  {row.what}: {row.ours}{compared}  target {row.target}  {verdict(row.met)}")
    for name, reason in results.skipped.items():
        print(f"  left out: {name}: {reason}")


def verdict(met: bool | None) -> str:
    return "" if met is None else "met" if met else "**missed**"


def seconds(value: float) -> str:
    return f"{value * 1000:.1f} ms" if value < 0.1 else f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def megabytes(value: float) -> str:
    return f"{value / MB:,.1f} MB" if abs(value) < 100 * MB else f"{value / MB:,.0f} MB"


def row(
    results: Results,
    what: str,
    ours: str,
    theirs: str,
    limit: float | None,
    *,
    key: str = "seconds",
    their_key: str | None = None,
    against: str = "",
    show: Callable[[float], str] = seconds,
) -> Row:
    """A row for a ratio of two variants, and the limit it is to stay under; without the other, the bare figure."""
    if not results.has(theirs):
        return Row(what, show(results.median(ours, key)), against or theirs, "not run", None, "–", None)
    ratio = results.ratio(ours, theirs, key, their_key)
    target = "–" if limit is None else f"≤ {limit:.2g} ×"
    return Row(
        what,
        show(results.median(ours, key)),
        against or theirs.replace("_", " "),
        show(results.median(theirs, their_key or key)),
        ratio,
        target,
        None if limit is None else ratio <= limit,
    )


def bound(what: str, value: float, limit: float, show: Callable[[float], str]) -> Row:
    """A row for a figure with a limit of its own."""
    return Row(what, show(value), "–", "–", None, f"≤ {show(limit)}", value <= limit)
