"""What a download survives, counted: killed and run again, a flipped byte, several processes at once. Prints N of N.

    python benchmarks/hub_faults.py [--times 50] [--scratch FOLDER]

Killed: a download of 24 MB is killed (SIGKILL) at a random point; the next process fetches what was missing and not a
byte more, and the file is right. Flipped: a server sends one wrong byte, at a random place, of a file whose checksum
it tells; that is noticed, and nothing of it stays. Together: four processes fetch one model at the same time; each byte
is sent once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import _hub_server
from _harness import machine, scratch_folder

SIZE, RATE = 24_000_000, 6.0  # bytes; MB/s of each connection
NAME = "model.safetensors"


def child(url: str, cache: str) -> None:
    """A process that fetches everything when it is told to."""
    from pretrained.hub.repository import open_repository
    from pretrained.options import SourceOptions

    snapshot = open_repository(_hub_server.REPO, SourceOptions(endpoint=url, cache_dir=cache, token=False))
    print("ready", flush=True)
    sys.stdin.readline()
    snapshot.fetch(snapshot.names())
    print("done", flush=True)


def start(url: str, cache: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, __file__, "--child", url, str(cache)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def is_done(process: subprocess.Popen[str]) -> bool:
    output, _ = process.communicate(timeout=120)
    return process.returncode == 0 and output == "done\n"


def served(url: str) -> int:
    with urlopen(f"{url}/served") as answer:
        return int(answer.read())


def settled(url: str) -> int:
    """Bytes sent, once the server has noticed that a client is gone: what it sends into such a connection counts."""
    last, now = -1, served(url)
    while last != now:
        time.sleep(0.5)
        last, now = now, served(url)
    return now


def is_right(cache: Path, digest: str) -> bool:
    (blob,) = [path for path in cache.rglob(digest) if path.is_file()]
    leftovers = list(cache.rglob("*.incomplete"))
    return hashlib.sha256(blob.read_bytes()).hexdigest() == digest and not leftovers


def missing_of(path: Path, cache: Path) -> int:
    """Bytes of a file that the cache does not have, neither under their name nor as a part."""
    from pretrained.hub.part import Part

    target = cache / "models--org--name/blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
    if target.exists():
        return 0
    target.parent.mkdir(parents=True, exist_ok=True)
    size = path.stat().st_size
    with Part(target, size) as part:
        return size - part.num_there


def killed(folder: Path, scratch: Path, times: int) -> tuple[int, list[float]]:
    """(how often all was well, how much was there each time the process was killed)."""
    digest = hashlib.sha256((folder / NAME).read_bytes()).hexdigest()
    good, shares = 0, []
    for number in range(times):
        cache = scratch / "killed"
        with _hub_server.hub(folder, RATE) as url:
            first = start(url, cache)
            go(first)
            time.sleep(random.Random(number).uniform(0.02, SIZE / 8 / RATE / 1e6 + 0.2))
            first.kill()
            first.communicate()
            missing = sum(missing_of(path, cache) for path in folder.iterdir())
            there = SIZE - missing_of(folder / NAME, cache)
            before = settled(url)
            second = start(url, cache)
            go(second)
            is_fine = is_done(second) and is_right(cache, digest)
            sent = served(url) - before
            good += is_fine and sent == missing
            if not (is_fine and sent == missing):
                left = [path.name for path in cache.rglob("*.incomplete")]
                print(f"  {number}: {sent} bytes were sent and {missing} missing; right: {is_fine}; left: {left}")
        shares.append(there / SIZE)
        shutil.rmtree(cache)
    return good, shares


def flipped(folder: Path, scratch: Path, times: int) -> int:
    from pretrained.errors import IntegrityError
    from pretrained.hub.repository import open_repository
    from pretrained.options import SourceOptions

    good = 0
    with _hub_server.hub(folder) as url, (folder / NAME).open("r+b") as file:
        for number in range(times):
            cache, place = scratch / "flipped", random.Random(number).randrange(SIZE)
            file.seek(place)
            (right,) = file.read(1)
            file.seek(place)
            file.write(bytes([right ^ 1 << number % 8]))
            file.flush()
            try:
                open_repository(_hub_server.REPO, SourceOptions(endpoint=url, cache_dir=cache, token=False)).path(NAME)
            except IntegrityError:
                good += not [path for path in cache.rglob("*") if path.is_file() and path.stat().st_size >= SIZE]
            file.seek(place)
            file.write(bytes([right]))
            file.flush()
            shutil.rmtree(cache)
    return good


def together(folder: Path, scratch: Path, times: int) -> int:
    good, total = 0, sum(path.stat().st_size for path in folder.iterdir())
    for _ in range(times):
        cache = scratch / "together"
        with _hub_server.hub(folder) as url:
            processes = [start(url, cache) for _ in range(4)]
            before = served(url)
            for process in processes:
                go(process)
            good += sum(is_done(process) for process in processes) == 4 and served(url) - before == total
        shutil.rmtree(cache)
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--scratch")
    options = parser.parse_args()
    if options.child:
        return child(*options.child)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        os.environ.pop(name, None)
        os.environ.pop(name.upper(), None)
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    with scratch_folder(options.scratch) as scratch:
        folder = scratch / "faults"
        folder.mkdir(exist_ok=True)
        (folder / NAME).write_bytes(random.Random(0).randbytes(SIZE))
        (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
        count, fewer = options.times, max(1, options.times // 10)
        good, shares = killed(folder, scratch, count)
        middle = sum(0 < share < 1 for share in shares)
        print(f"killed and run again: {good}/{count} ({middle} of them in the middle of the file)")
        print(f"flipped byte noticed: {flipped(folder, scratch, count)}/{count}")
        print(f"four processes, each byte sent once: {together(folder, scratch, fewer)}/{fewer}")
        print(machine())


if __name__ == "__main__":
    main()
