"""Kills, breaks and interrupts saves at every file operation and at random moments, and looks at what is left.

--runs 200 prints N/N lines, and the exit status is 1 unless every N is reached; --naive does the same to a save that
writes in place, which shows that it can fail.
"""

from __future__ import annotations

import argparse
import errno
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pretrained.checkpoint import commit_exchange, commit_lock
from pretrained.checkpoint.commit import Stage, recover
from pretrained.errors import SaveError

CHANGES = ("open", "mkdir", "rmdir", "unlink", "replace", "rename", "link", "chmod", "chown", "fsync", "write")
LOOKS = ("listdir", "scandir", "stat", "lstat", "access")
REMOVALS = ("unlink", "rmdir")
FAULTS = (errno.ENOSPC, errno.EIO, errno.EACCES)
KINDS = ("once", "for good", "for good but looking and removing")

Act = Callable[[int, str], None]
Save = Callable[["Scenario", Path], None]


class Scenario(NamedTuple):
    """Files of a checkpoint before and after a save; what is in `old` alone becomes stale."""

    name: str
    old: tuple[str, ...] | None  # None: no folder yet
    new: tuple[str, ...]
    links: bool = False  # the old files are links into a cache


def shards(count: int) -> tuple[str, ...]:
    return ("config.json", "index.json", *(f"model-{i}-of-{count}.safetensors" for i in range(1, count + 1)))


ONE = ("config.json", "model.safetensors")
BYSTANDER = "README.md"
SCENARIOS = (
    Scenario("one file over one file", ONE, ONE),
    Scenario("shards over one file", ONE, shards(3)),
    Scenario("one file over shards", shards(3), ONE),
    Scenario("fewer shards over more", shards(4), shards(2)),
    Scenario("first save", None, ONE),
    Scenario("over links into a cache", ONE, shards(2), links=True),
)


def content(generation: str, name: str) -> bytes:
    return f"{generation} {name} ".encode() * 40


def expected(scenario: Scenario, generation: str) -> dict[str, bytes]:
    names = scenario.new if generation == "new" else scenario.old or ()
    files = {name: content(generation, name) for name in names}
    return files if scenario.old is None else {**files, BYSTANDER: b"bystander"}


def prepare(scenario: Scenario, base: Path) -> Path:
    """The folder of the scenario before the save, alone in a fresh `base`."""
    shutil.rmtree(base, ignore_errors=True)
    folder = base / "snapshots" / "model"
    folder.parent.mkdir(parents=True)
    if scenario.old is None:
        return folder
    folder.mkdir()
    (folder / BYSTANDER).write_bytes(b"bystander")
    for name in scenario.old:
        if scenario.links:
            blob = base / "blobs" / name
            blob.parent.mkdir(exist_ok=True)
            blob.write_bytes(content("old", name))
            (folder / name).symlink_to(f"../../blobs/{name}")
        else:
            (folder / name).write_bytes(content("old", name))
    return folder


def save(scenario: Scenario, folder: Path) -> None:
    with Stage(folder) as stage:
        for name in scenario.new:
            write(stage.path(name), content("new", name))
        for name in set(scenario.old or ()) - set(scenario.new):
            stage.remove(name)
        stage.commit()


def save_naively(scenario: Scenario, folder: Path) -> None:
    with suppress(FileExistsError):
        os.mkdir(folder)
    for name in scenario.new:
        write(folder / name, content("new", name))
    for name in set(scenario.old or ()) - set(scenario.new):
        os.unlink(folder / name)


def write(path: Path, text: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        os.write(fd, text[: len(text) // 2])
        os.write(fd, text[len(text) // 2 :])
    finally:
        os.close(fd)


def read(folder: Path, overlay: dict[str, Path | None] | None = None) -> dict[str, bytes]:
    """What a program finds in the folder that leaves hidden files alone."""
    if not folder.exists():
        return {}
    files = {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}
    for name, path in (overlay or {}).items():
        files.pop(name, None)
        if path is not None:
            files[name] = path.read_bytes()
    return files


def leftovers(folder: Path) -> list[str]:
    places = [place for place in (folder, folder.parent) if place.exists()]
    return [str(path) for place in places for path in place.iterdir() if path.name.startswith(".")]


def blobs_intact(scenario: Scenario, base: Path) -> bool:
    return not scenario.links or all((base / "blobs" / n).read_bytes() == content("old", n) for n in scenario.old or ())


@contextmanager
def watched(
    act: Act, operations: tuple[str, ...] = CHANGES, *, exchange: bool = True, flush: bool = False
) -> Iterator[None]:
    """Calls `act(count, name)` before each file operation; without `exchange`, the system knows none.

    Without `flush`, fsync is called and does nothing: it makes no difference to a process that dies.
    """
    count = 0
    originals = {name: getattr(os, name) for name in operations}
    doing = {**originals, "fsync": os.fsync if flush else lambda fd: None}
    swap, flock, find_call = commit_exchange.swap, commit_lock._lock, commit_exchange.find_call

    def wrap(name, original):
        def operation(*args, **keywords):
            nonlocal count
            count += 1
            act(count, name)
            return original(*args, **keywords)

        return operation

    try:
        for name in originals:
            setattr(os, name, wrap(name, doing[name]))
        commit_exchange.swap = wrap("swap", swap)
        commit_lock._lock = wrap("flock", flock)
        if not exchange:
            commit_exchange.find_call = lambda: None
        yield
    finally:
        for name, original in originals.items():
            setattr(os, name, original)
        commit_exchange.swap, commit_lock._lock, commit_exchange.find_call = swap, flock, find_call


def idle(count: int, name: str) -> None:
    pass


def killed(work: Callable[[], object], point: int, *, exchange: bool) -> bool:
    """Runs `work` in a child that is killed at its operation number `point`; False when it has fewer."""

    def act(count: int, name: str) -> None:
        if count == point:
            os.kill(os.getpid(), signal.SIGKILL)

    return finish(start(work, act, exchange=exchange))


def start(work: Callable[[], object], act: Act, *, exchange: bool, flush: bool = False) -> int:
    child = os.fork()
    if child:
        return child
    try:
        with watched(act, exchange=exchange, flush=flush):
            work()
        os._exit(0)
    finally:
        os._exit(1)


def finish(child: int) -> bool:
    """Whether the child was killed; one that ends in any other way must have done its work."""
    status = os.waitpid(child, 0)[1]
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("the child failed")
    return os.WIFSIGNALED(status)


class Tally:
    """Counts of right outcomes per line of the report, and the wrong ones in words."""

    def __init__(self) -> None:
        self.lines: dict[str, list[int]] = {}
        self.complaints: list[str] = []

    def note(self, line: str, right: bool, words: str) -> None:
        counts = self.lines.setdefault(line, [0, 0])
        counts[0] += right
        counts[1] += 1
        if not right:
            self.complaints.append(f"{line}: {words}")

    def report(self) -> bool:
        print(*(f"{line}: {right}/{total} old or new" for line, (right, total) in self.lines.items()), sep="\n")
        print(*(f"   {complaint}" for complaint in self.complaints[:20]), sep="\n")
        return all(right == total for right, total in self.lines.values())


def check(tally: Tally, line: str, scenario: Scenario, folder: Path, words: str, by_save: bool = False) -> None:
    """After a crash: recover, by a load or by another save that changes nothing; then old or new, and nothing else."""
    with watched(idle):
        Stage(folder).__exit__(None, None, None) if by_save else recover(folder)
    found = read(folder)
    right = found in (expected(scenario, "old"), expected(scenario, "new"))
    right = right and not leftovers(folder) and blobs_intact(scenario, folder.parents[1])
    tally.note(line, right, f"{scenario.name}, {words}: {sorted(found)} {leftovers(folder)}")


def kill_everywhere(tally: Tally, base: Path, *, exchange: bool, how: Save = save, deeper: int = 0) -> None:
    """Kills the save at each operation; with `deeper`, at each so-many-th kills every operation of the recovery too."""
    mode = "exchange" if exchange else "redo log"
    for scenario in SCENARIOS:
        for point in itertools.count(1):
            folder = prepare(scenario, base)
            if not killed(partial(how, scenario, folder), point, exchange=exchange):
                check(tally, f"kill at every operation, {mode}", scenario, folder, "not killed")
                break
            if exchange:
                found = read(folder)
                right = found in (expected(scenario, "old"), expected(scenario, "new"))
                tally.note("kill at every operation, programs that know no record", right, f"{scenario.name}, {point}")
            check(tally, f"kill at every operation, {mode}", scenario, folder, str(point), by_save=point % 2 == 0)
            if deeper and point % deeper == 0:
                kill_recovery(tally, base, scenario, point, exchange=exchange, how=how)


def kill_recovery(tally: Tally, base: Path, scenario: Scenario, point: int, *, exchange: bool, how: Save) -> None:
    for second in itertools.count(1):
        folder = prepare(scenario, base)
        killed(partial(how, scenario, folder), point, exchange=exchange)
        again = killed(partial(recover, folder), second, exchange=True)
        words = f"{point}, recovery {second}"
        check(tally, "kill in the recovery too", scenario, folder, words, by_save=second % 2 == 0)
        if not again:
            return


def kill_randomly(tally: Tally, base: Path, runs: int, how: Save = save) -> None:
    """Kills by a timer, over all scenarios in turn, with and without exchange."""
    lengths: dict[tuple[str, bool], float] = {}
    for run in range(runs):
        scenario = SCENARIOS[run // 2 % len(SCENARIOS)]
        exchange = run % 2 == 0
        if run < 2 * len(SCENARIOS):
            lengths[scenario.name, exchange] = time_save(scenario, prepare(scenario, base), exchange, how, None)
        folder = prepare(scenario, base)
        delay = random.uniform(0, 1.2 * lengths[scenario.name, exchange])
        time_save(scenario, folder, exchange, how, delay)
        check(tally, "random kills", scenario, folder, f"after {delay:.4f} s", by_save=run % 3 == 0)


def time_save(scenario: Scenario, folder: Path, exchange: bool, how: Save, delay: float | None) -> float:
    """Seconds that a save takes in a child, which is killed after `delay` seconds if that is given."""
    ready, go = os.pipe()

    def work() -> None:
        os.close(ready)
        os.close(go)
        how(scenario, folder)

    child = start(work, idle, exchange=exchange, flush=True)
    os.close(go)
    os.read(ready, 1)  # end of file: the child begins
    os.close(ready)
    began = time.perf_counter()
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    finish(child)
    return time.perf_counter() - began


def breaking(point: int, code: int, kind: str) -> Act:
    spared = (*LOOKS, *REMOVALS) if kind == KINDS[2] else ()

    def act(count: int, name: str) -> None:
        if count == point if kind == "once" else count >= point and name not in spared:
            raise OSError(code, os.strerror(code), f"<{name}>")

    return act


def judge_fault(scenario: Scenario, folder: Path, act: Act, *, exchange: bool, tidy: bool) -> tuple[bool, str]:
    """Whether a save with this fault ends right, and in words how it ended."""
    before = num_open_files()
    reached = 0

    def counting(count: int, name: str) -> None:
        nonlocal reached
        reached = count
        act(count, name)

    outcome = "saved"
    right = True
    try:
        with watched(counting, CHANGES + LOOKS, exchange=exchange):
            save(scenario, folder)
    except SaveError as error:
        outcome = {True: "committed", False: "refused", None: "unknown"}[error.committed]
        right = isinstance(error.__cause__, OSError) and str(folder) in str(error) and error.path == str(folder)
    words = f"{outcome} after {reached} operations"
    right = right and num_open_files() == before
    if outcome in ("saved", "refused"):
        right = right and read(folder) == expected(scenario, "new" if outcome == "saved" else "old")
        right = right and not (tidy and leftovers(folder))
    with watched(idle):
        recover(folder)
    found, old, new = read(folder), expected(scenario, "old"), expected(scenario, "new")
    right = right and found in {"refused": (old,), "unknown": (old, new)}.get(outcome, (new,))
    right = right and not leftovers(folder) and blobs_intact(scenario, folder.parents[1])
    return right, words


def num_open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0


def break_everywhere(tally: Tally, base: Path, scenario: Scenario, code: int, *, exchange: bool) -> None:
    """Every operation fails: once, for good, and for good but for looks and removals."""
    mode = "exchange" if exchange else "redo log"
    last = num_operations(scenario, base, exchange=exchange)
    for kind, point in itertools.product(KINDS, range(1, last + 1)):
        act, folder = breaking(point, code, kind), prepare(scenario, base)
        right, words = judge_fault(scenario, folder, act, exchange=exchange, tidy=kind != KINDS[1])
        words = f"{scenario.name}, operation {point} fails {kind} with {errno.errorcode[code]}: {words}"
        tally.note(f"error at every operation, {mode}", right, words)


def num_operations(scenario: Scenario, base: Path, *, exchange: bool) -> int:
    seen: list[str] = []
    folder = prepare(scenario, base)
    with watched(lambda count, name: seen.append(name), CHANGES + LOOKS, exchange=exchange):
        save(scenario, folder)
    return len(seen)


def has_exchange(base: Path) -> bool:
    (base / "a").mkdir(parents=True)
    (base / "b").mkdir()
    with suppress(OSError):
        commit_exchange.swap(base / "a", base / "b")
        return True
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100, help="kills at random moments")
    parser.add_argument("--deeper", type=int, default=1, help="kill the recovery of every so-many-th kill; 0: of none")
    parser.add_argument("--naive", action="store_true", help="save in place instead")
    parser.add_argument("--faults", action="store_true", help="errors at every operation as well")
    parser.add_argument("--folder", help="where to save; the temporary folder of the system if not given")
    options = parser.parse_args()
    how = save_naively if options.naive else save
    tally = Tally()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        base = Path(os.path.realpath(name)) / "base"
        for exchange in (True, False) if has_exchange(Path(name) / "probe") else (False,):
            kill_everywhere(tally, base, exchange=exchange, how=how, deeper=options.deeper)
            for scenario, code in itertools.product(SCENARIOS, FAULTS) if options.faults else ():
                break_everywhere(tally, base, scenario, code, exchange=exchange)
        kill_randomly(tally, base, options.runs, how)
    return 0 if tally.report() else 1


if __name__ == "__main__":
    sys.exit(main())
