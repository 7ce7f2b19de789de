"""Every benchmark, one after the other; prints ratios and writes docs/performance.md."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

from _harness import HERE, add_options, machine, scratch_folder, verdict, versions

ORDER = (
    "import_time", "first_load", "warm_load", "many_tensors", "mapped_memory", "cold_load", "copying_load", "cast_load",
    "moe_load", "format_loads", "gguf_load", "saving", "resize", "offload", "generate", "hub_stream",
    "flax_load", "flax_generate", "flax_sharded", "tf_load", "tf_generate",
)  # fmt: skip
PEERS = (
    "torch", "transformers", "safetensors", "accelerate", "tensorizer", "runai-model-streamer", "fastsafetensors",
    "gguf", "h5py", "msgpack",
)  # fmt: skip
PAGE = HERE.parent / "docs" / "performance.md"
REQUIREMENTS = {".venv-peers": "requirements-peers.txt", ".venv-peers-4": "requirements-peers-4.txt"}
# What is compared with the last release of transformers that had Flax and TensorFlow classes.
WITH_RELEASE_4 = ("flax_load", "flax_generate", "tf_load", "tf_generate")

INTRODUCTION = """\
# Speed and memory

Written by `make bench`, which replaces it. What is said here was measured in one run on one machine, and only ratios
travel: every variant runs in a fresh process, in turns with what it is compared with, and a ratio is the median over
rounds of two runs that stood next to each other. Beside each figure stand the median times they come from.

Warm means that the file is in the page cache, cold that it was taken out of it before each run (`posix_fadvise`).
Memory is read from /proc/self/smaps_rollup and VmHWM. On a virtual machine, memory that was given back to the host is
several times slower to touch; as much as a run needs is touched and given back before the clock starts, for all
alike. That favours loaders that ask for huge pages, as ours does, more than the others. How each number comes about
is in the script of the same name in `benchmarks/`.
"""

ADVICE = """\
## What follows for a user

- A load maps the file. It returns at once, and the weights come in as they are used; processes share them.
- The first pass that writes to mapped weights, as in training, copies each page at its first write. Load with
  `mmap=False` if you are going to train: that reads the file with several threads into memory of its own.
- A mapped file that somebody else cuts short in place kills the process (SIGBUS). A save by this library never writes
  to a file that is there; for files that others write to, `mmap=False`.
- On a network file system nothing is mapped: the file is read with several threads.
- `save_pretrained(durable=False)` leaves out the flush to the disk. The checkpoint is still replaced all at once, and a
  killed process leaves a whole one; only a power cut may not.
- Shards are written by several threads, one file is not: it has one lock in the kernel.

## Where the limits are

- Warm load: more than half of it builds the modules, which is nn.Module's own bookkeeping (a trial that only builds
  them on the meta device and maps the file, checking nothing, is about a fifth of transformers' load). The checks,
  the plan and the binding cost the rest, about 20 µs a tensor.
- Copying load: one copy from the page cache by as many threads as there are cores, into huge pages where the host gives
  them quickly. What remains is the speed of memory; on two cores the ratio to the fastest peer lies around one half.
- Cold load: O_DIRECT and the page cache take turns in being the faster way to read, by the machine; a mapped load uses
  the page cache.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("names", nargs="*", help=f"some of: {', '.join(ORDER)}")
    parser.add_argument("--output", default=str(PAGE), help="the page that is written")
    options = parser.parse_args()
    if unknown := set(options.names) - set(ORDER):
        raise SystemExit(f"no benchmark {', '.join(sorted(unknown))}; there is {', '.join(ORDER)}")
    peers, names = Path(options.peer_python).absolute(), options.names or ORDER
    if not set(names) <= set(WITH_RELEASE_4):
        _make_peers(peers, ".venv-peers")
    older = HERE.parent / ".venv-peers-4" / "bin" / "python"
    if set(names) & set(WITH_RELEASE_4):
        _make_peers(older, ".venv-peers-4")
    records = []
    with scratch_folder(options.scratch) as scratch, tempfile.TemporaryDirectory() as answers:
        for name in names:
            answer = Path(answers) / f"{name}.json"
            command = [sys.executable, str(HERE / f"{name}.py"), "--scratch", str(scratch), "--json", str(answer)]
            command += ["--peer-python", str(older if name in WITH_RELEASE_4 else peers)]
            command += ["--quick"] if options.quick else []
            command += ["--repeats", str(options.repeats)] if options.repeats else []
            print(f"\n{name}", file=sys.stderr, flush=True)
            if subprocess.run(command, check=False).returncode == 0:
                records.append(json.loads(answer.read_text()))
            else:
                records.append({"name": name, "title": name, "text": "It failed.", "rows": [], "skipped": {}})
    text = page(records, peers, options)
    Path(options.output).write_text(text, encoding="utf-8")
    print(f"\nwritten to {options.output}")


def _make_peers(python: Path, name: str) -> None:
    """An environment of peers, unless it is there; only the default ones are ever made."""
    folder = HERE.parent / name
    ready = folder / ".ready"  # made last: an installation that was broken off is begun again
    if ready.exists() or (python.exists() and python != folder / "bin" / "python"):
        return
    if python != folder / "bin" / "python":
        raise SystemExit(f"no interpreter at {python}")
    print(f"installing the peers into {folder}", file=sys.stderr, flush=True)
    venv.create(folder, with_pip=True, clear=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(HERE / REQUIREMENTS[name])], check=True)
    ready.touch()


def page(records: list[dict[str, Any]], peers: Path, options: argparse.Namespace) -> str:
    """The page, from what the benchmarks said."""
    shown = ["--quick"] if options.quick else []
    shown += ["--repeats", str(options.repeats)] if options.repeats else []
    shown += options.names
    ours = versions(sys.executable, ("pretrained", "torch", "numpy", "gguf"))
    theirs = versions(peers, PEERS) if peers.exists() else {}
    load = os.getloadavg()
    head = [
        INTRODUCTION,
        f"- Machine: {machine()}. Load average of the last 15 minutes at the end of the run: {load[2]:.1f}.",
        f"- Ours: Python {sys.version.split()[0]}, {_listed(ours)}.",
        f"- Peers: {_listed(theirs)}.",
        f"- Command: `{shlex.join(['python', 'benchmarks/run.py', *shown])}`, {datetime.date.today():%Y-%m-%d}.",
        "",
        _summary(records),
    ]
    return "\n".join([*head, *(_section(record) for record in records), ADVICE])


def _listed(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _summary(records: list[dict[str, Any]]) -> str:
    judged = [(record, row) for record in records for row in record["rows"] if row["met"] is not None]
    missed = [f"{record['title']}: {row['what']}" for record, row in judged if not row["met"]]
    text = f"{len(judged) - len(missed)} of {len(judged)} targets are met."
    return text + (f" Missed: {'; '.join(missed)}.\n" if missed else "\n")


def _section(record: dict[str, Any]) -> str:
    lines = [f"## {record['title']}", "", record["text"], ""]
    if record["rows"]:
        lines += ["| | pretrained | compared with | | ratio | target | |", "|---|---|---|---|---|---|---|"]
    for row in record["rows"]:
        ratio = "–" if row["ratio"] is None else f"{row['ratio']:.2f}"
        cells = [row["what"], row["ours"], row["against"], row["theirs"], ratio, row["target"], verdict(row["met"])]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *record.get("notes", [])]
    lines += [f"Left out: {name}: {reason}." for name, reason in record["skipped"].items()]
    rounds = max((len(runs) for runs in record.get("rounds", {}).values()), default=0)
    lines.append(f"{rounds} rounds, `benchmarks/{record['name']}.py`.\n")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
