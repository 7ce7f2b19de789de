"""Downloads: resumed, verified, shared with huggingface_hub's cache, right with other processes and without locks."""

from __future__ import annotations

import errno
import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants
from loopback_hub import COMMIT, Hub, Store, git_oid, online, sha256

from pretrained.errors import HubError, IntegrityError, ResourceLimitError, SourceError
from pretrained.hub import download as module
from pretrained.hub import part, ranges
from pretrained.hub.ref import resolve
from pretrained.options import SourceOptions

HERE = Path(__file__).parent
SIZE = 3 << 20


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "CHUNK", 256 << 10)
    monkeypatch.setattr(part, "FLUSH", 64 << 10)
    monkeypatch.setattr(ranges, "MIN_REQUEST", 256 << 10)
    monkeypatch.setattr(ranges, "MAX_REQUEST", 256 << 10)
    monkeypatch.setattr(ranges, "SLICE", 32 << 10)
    monkeypatch.setattr(ranges, "PAUSE", 0.001)


@pytest.fixture
def large(hub: Hub) -> Hub:
    """A hub whose repository has a file of 3 MiB."""
    hub.commits = {
        COMMIT: {"config.json": b'{"model_type": "bert"}', "model.safetensors": random.Random(0).randbytes(SIZE)}
    }
    return hub


def content(hub: Hub) -> bytes:
    return hub.commits[COMMIT]["model.safetensors"]


def fetch(hub: Hub, tmp_path: Path, name: str = "model.safetensors", **options: Any) -> Path:
    return resolve("org/name", online(hub, tmp_path, **options)).path(name)


def tree_of(folder: Path) -> dict[str, str]:
    """Everything below a folder: what links lead to, the bytes of files, and their rights."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = f"{stat.filemode(path.stat().st_mode)} {sha256(path.read_bytes())}"
    return found


def test_the_cache_is_huggingface_hubs(large: Hub, tmp_path: Path) -> None:
    """Byte for byte, link for link and right for right."""
    resolve("org/name", online(large, tmp_path)).fetch(["config.json", "model.safetensors"])
    theirs = tmp_path / "theirs"
    for name in large.commits[COMMIT]:
        huggingface_hub.hf_hub_download("org/name", name, endpoint=large.url, cache_dir=theirs, token=False)
    ours = tree_of(tmp_path / "downloads")
    assert ours == tree_of(theirs)
    assert len(ours) == 8  # two links, two blobs, two locks, a ref and a tag
    large.requests.clear()
    path = huggingface_hub.hf_hub_download(
        "org/name", "model.safetensors", revision=COMMIT, cache_dir=tmp_path / "downloads", token=False
    )
    assert Path(path).read_bytes() == content(large) and large.requests == []
    assert [repo.repo_id for repo in huggingface_hub.scan_cache_dir(tmp_path / "downloads").repos] == ["org/name"]
    assert not huggingface_hub.scan_cache_dir(tmp_path / "downloads").warnings


def test_what_huggingface_hub_fetched_is_not_fetched_again(large: Hub, store: Store, tmp_path: Path) -> None:
    huggingface_hub.hf_hub_download(
        "org/name", "model.safetensors", endpoint=large.url, cache_dir=tmp_path / "downloads", token=False
    )
    store.served.clear()
    assert fetch(large, tmp_path).read_bytes() == content(large)
    assert store.served == []


def test_a_download_is_resumed_where_it_ended(large: Hub, store: Store, tmp_path: Path) -> None:
    store.reach = SIZE // 2
    with pytest.raises(HubError, match="the connection was cut"):
        fetch(large, tmp_path)
    blobs = tmp_path / "downloads/models--org--name/blobs"
    assert sorted(path.suffix for path in blobs.iterdir()) == [".incomplete", ".incomplete"]
    assert not (tmp_path / "downloads/models--org--name/snapshots").exists()
    store.reach = None
    store.served.clear()
    assert fetch(large, tmp_path).read_bytes() == content(large)
    # Of what had come, no more than one write of each connection was lost.
    assert SIZE // 2 <= store.num_bytes <= SIZE // 2 + 32 * part.FLUSH
    assert [path.name for path in blobs.iterdir()] == [sha256(content(large))]


def test_marks_that_are_ahead_of_their_bytes(large: Hub, store: Store, tmp_path: Path) -> None:
    """As after a power cut: the checksum finds it, and all of it is fetched again, once."""
    store.reach = SIZE // 2
    with pytest.raises(HubError):
        fetch(large, tmp_path)
    (found,) = [path for path in (tmp_path / "downloads").rglob("*.incomplete") if ".marks" not in path.name]
    with found.open("r+b") as file:
        file.write(bytes(1000))
    store.reach = None
    store.served.clear()
    assert fetch(large, tmp_path).read_bytes() == content(large)
    assert store.num_bytes >= SIZE


@pytest.mark.parametrize("damage", [lambda raw: raw[:10], lambda raw: b"x" + raw[1:], lambda raw: raw + b"x"])
def test_marks_that_are_damaged(damage: Any, large: Hub, store: Store, tmp_path: Path) -> None:
    store.reach = SIZE // 2
    with pytest.raises(HubError):
        fetch(large, tmp_path)
    (marks,) = [path for path in (tmp_path / "downloads").rglob("*.incomplete") if ".marks" in path.name]
    marks.write_bytes(damage(marks.read_bytes()))
    store.reach = None
    assert fetch(large, tmp_path).read_bytes() == content(large)


def test_a_flipped_byte_is_noticed(large: Hub, store: Store, tmp_path: Path) -> None:
    store.flipped = True
    with pytest.raises(
        IntegrityError, match=r"what was sent has the checksum .* It was removed; run this again"
    ) as caught:
        fetch(large, tmp_path)
    assert caught.value.expected == sha256(content(large)) and caught.value.got != caught.value.expected
    blobs = tmp_path / "downloads/models--org--name/blobs"
    assert list(blobs.iterdir()) == []
    store.flipped = False
    assert fetch(large, tmp_path).read_bytes() == content(large)


def test_a_flipped_byte_of_a_small_file(large: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = large.commits[COMMIT]["config.json"]
    sibling = large.sibling
    monkeypatch.setattr(large, "sibling", lambda name, raw: {**sibling(name, raw), "blobId": git_oid(right + b" ")})
    with pytest.raises(IntegrityError, match=r"config.json: what was sent has the checksum"):
        fetch(large, tmp_path, "config.json")


def test_verify_says_when_checksums_are_compared(large: Hub, store: Store, tmp_path: Path) -> None:
    store.flipped = True
    path = fetch(large, tmp_path, verify=False)
    assert path.read_bytes() != content(large)
    assert fetch(large, tmp_path).read_bytes() != content(large)  # once, after a download; this one was there
    store.flipped = False
    for options in ({}, {"local_files_only": True}):
        path = fetch(large, tmp_path, verify=False)
        blob = path.resolve()
        blob.write_bytes(b"x" + blob.read_bytes()[1:])
        with pytest.raises(IntegrityError, match="the file in the cache is damaged"):
            fetch(large, tmp_path, verify=True, **options)
        assert not path.exists() and not blob.exists()
        assert fetch(large, tmp_path, verify=True).read_bytes() == content(large)
    assert fetch(large, tmp_path, verify=True, local_files_only=True).read_bytes() == content(large)


def test_force_download_fetches_what_is_there(large: Hub, store: Store, tmp_path: Path) -> None:
    first = fetch(large, tmp_path)
    first.resolve().write_bytes(b"stale")
    store.served.clear()
    assert fetch(large, tmp_path, force_download=True).read_bytes() == content(large)
    assert store.num_bytes == SIZE


@pytest.mark.parametrize("fault", ["cuts", "busy", "lifetime"])
def test_what_a_network_does(fault: str, large: Hub, store: Store, tmp_path: Path) -> None:
    setattr(store, fault, 3)
    assert fetch(large, tmp_path).read_bytes() == content(large)


def test_a_hub_that_lists_files_without_their_digests(large: Hub, tmp_path: Path) -> None:
    large.lists_everything = False
    assert fetch(large, tmp_path).read_bytes() == content(large)
    assert any("/tree/" in request for request in large.requests)


# Several processes


def start(hub: Hub, cache: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "fetch_once.py"), hub.url, str(cache), "org/name", *flags]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    return child


def go(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()


def finish(child: subprocess.Popen[str]) -> None:
    output, _ = child.communicate(timeout=60)
    assert (child.returncode, output) == (0, "done\n")


def test_a_download_that_is_killed(large: Hub, store: Store, tmp_path: Path) -> None:
    store.delay = 0.03
    child = start(large, tmp_path / "downloads")
    go(child)
    target = tmp_path / "downloads/models--org--name/blobs" / sha256(content(large))
    marks = target.with_name(f"{target.name}.marks.pretrained.incomplete")
    until = time.monotonic() + 30
    while not (marks.exists() and any(marks.read_bytes()[24:])) and time.monotonic() < until:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    with part.Part(target, SIZE) as marked:
        there = marked.num_there
    assert 0 < there < SIZE
    store.delay = 0.0
    store.served.clear()
    assert fetch(large, tmp_path).read_bytes() == content(large)
    assert store.num_bytes == SIZE - there


def test_several_processes_fetch_each_byte_once(large: Hub, store: Store, tmp_path: Path) -> None:
    children = [start(large, tmp_path / "downloads") for _ in range(3)]
    for child in children:
        go(child)
    for child in children:
        finish(child)
    assert store.num_bytes == SIZE
    assert sum(request.startswith("GET") and request.endswith("config.json") for request in large.requests) == 1
    assert fetch(large, tmp_path, local_files_only=True).read_bytes() == content(large)


def test_two_processes_with_locks_that_do_not_lock(large: Hub, store: Store, tmp_path: Path) -> None:
    store.delay = 0.02
    children = [start(large, tmp_path / "downloads", "--broken-locks") for _ in range(2)]
    for child in children:
        go(child)
    for child in children:
        finish(child)
    assert fetch(large, tmp_path, verify=True).read_bytes() == content(large)
    assert len(list((tmp_path / "downloads/models--org--name/blobs").iterdir())) == 2


def test_a_byte_that_a_second_writer_spoilt(large: Hub, store: Store, tmp_path: Path) -> None:
    """Without locks, another process may have put the very file in place that this one still wrote to."""
    target = tmp_path / "blobs" / "x"
    target.parent.mkdir()
    with part.Part(target, 1000) as mine, part.Part(target, 1000) as other:
        other.finish()
        mine.drop()
    assert not target.exists()


# Disks and bars


def test_a_full_disk(large: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("usage", (), {"free": 1000}))
    with pytest.raises(ResourceLimitError, match=r"3,145,728 bytes are to come, and the disk has room for 1,000"):
        fetch(large, tmp_path)
    monkeypatch.undo()

    def refuse(fd: int, content: Any, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(part.os, "pwrite", refuse)
    with pytest.raises(ResourceLimitError, match=r"cannot be written to: No space left on device.*stream=True"):
        fetch(large, tmp_path)


def test_a_cache_that_cannot_be_made(large: Hub, tmp_path: Path) -> None:
    (tmp_path / "downloads").write_text("a file")
    with pytest.raises(SourceError, match=r"downloads/models--org--name/blobs cannot be written to"):
        fetch(large, tmp_path)


def test_what_was_left_long_ago_goes(large: Hub, tmp_path: Path) -> None:
    blobs = tmp_path / "downloads/models--org--name/blobs"
    blobs.mkdir(parents=True)
    old, new, theirs = (blobs / name for name in ("a.pretrained.incomplete", "b.pretrained.incomplete", "c.incomplete"))
    for path in (old, new, theirs):
        path.write_bytes(b"x")
    long_ago = time.time() - 8 * 24 * 3600
    os.utime(old, (long_ago, long_ago))
    os.utime(theirs, (long_ago, long_ago))
    fetch(large, tmp_path)
    assert not old.exists() and new.exists() and theirs.exists()


@pytest.mark.parametrize("disabled", [False, True])
def test_bars(
    disabled: bool, large: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    utils = sys.modules["huggingface_hub.utils.tqdm"]
    monkeypatch.setattr(utils, "HF_HUB_DISABLE_PROGRESS_BARS", disabled or None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    resolve("org/name", online(large, tmp_path)).fetch(["config.json", "model.safetensors"])
    shown = capsys.readouterr().err
    assert ("model.safetensors" in shown and "100%" in shown) is not disabled
    assert "config.json" not in shown


# Endpoints that are down


def test_a_hub_that_went_away(
    large: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = online(large, tmp_path)
    resolve("org/name", source).path("config.json")
    gone = SourceOptions(endpoint="http://127.0.0.1:9", cache_dir=source.cache_dir, token=False)
    with caplog.at_level("WARNING", "pretrained"):
        snapshot = resolve("org/name", gone)
    assert snapshot.commit == COMMIT and snapshot.names() == ["config.json"]
    assert "127.0.0.1 does not answer (ConnectError); using aaaaaaaaaaaa of org/name" in caplog.text
    large.status = 503
    assert resolve("org/name", source).commit == COMMIT
    for refusal in ({"revision": "v2"}, {"force_download": True}):
        complaint = r"ConnectError: no answer after 0\.\d s. If a folder was meant, \./org/name does not exist\."
        with pytest.raises(HubError, match=complaint):
            resolve("org/name", SourceOptions(endpoint=gone.endpoint, cache_dir=gone.cache_dir, token=False, **refusal))


def test_a_hub_that_never_answers(tmp_path: Path, quiet: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr("pretrained.hub.repository._PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(HubError, match=r"ReadTimeout: no answer after 0\.\d s"):
            resolve("org/name", SourceOptions(endpoint=endpoint, cache_dir=tmp_path, token=False))


def test_a_store_that_drips(large: Hub, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "STALL", 0.2)
    monkeypatch.setattr(ranges, "TRIES", 2)
    store.delay = 30.0
    with pytest.raises(HubError, match="cannot read org/name@aaaaaaaa"):
        fetch(large, tmp_path)
    store.delay = 0.0
    assert fetch(large, tmp_path).read_bytes() == content(large)


def test_offline_lists_what_is_there(large: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch(large, tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    large.requests.clear()
    assert resolve("org/name", online(large, tmp_path)).names() == ["model.safetensors"]
    with pytest.raises(HubError, match=r"org/name@v2 is not in the cache .*: aaaaaaaaaaaa \(main\)"):
        resolve("org/name", online(large, tmp_path, revision="v2"))
    with pytest.raises(HubError, match=r"Cached: models--org--name"):
        resolve("org/other", online(large, tmp_path))
    assert resolve("hf://org/name/model.safetensors", online(large, tmp_path)).only == "model.safetensors"
    assert large.requests == []
