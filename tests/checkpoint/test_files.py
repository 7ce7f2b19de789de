"""Names, opening, recognising and JSON: everything a hostile folder can hold before a weight file is even looked at."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pretrained.checkpoint import files
from pretrained.checkpoint.files import (
    fill,
    open_regular,
    parse_json,
    read_json,
    read_up_to,
    recognise,
    safe_join,
    safe_name,
    stamp_of,
)
from pretrained.errors import (
    ConfigError,
    PretrainedError,
    ResourceLimitError,
    ShardIndexError,
    SourceError,
    UntrustedPathError,
    WeightsFormatError,
)

FDS = Path("/proc/self/fd")


def check_message(error: PretrainedError, path: Path) -> None:
    """What every error of ours must be: short, printable, naming the file."""
    assert len(str(error).encode()) <= 2048
    assert path.name in str(error)
    assert error.path == str(path)
    assert error.reason
    assert error.reason in str(error)
    assert all(char.isprintable() or char == "\n" for char in str(error))


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "sub/model.safetensors",
        "モデル-🤗.bin",
        "a b",
        ".hidden",
        "..a",
        "a..b",
        "x" * 1024,
        "~root",
    ],
)
def test_safe_name_accepts_plain_names(name: str) -> None:
    assert safe_name(name) == name


HOSTILE_NAMES = [
    "",
    ".",
    "..",
    "../x",
    "a/../x",
    "a/..",
    "./x",
    "a/./x",
    "a//x",
    "a/",
    "/etc/passwd",
    "//x",
    "a\\x",
    "..\\x",
    "C:x",
    "C:/x",
    "http://host/x",
    "file:/etc/passwd",
    "hf+x:a",
    "a\0x",
    "a\nx",
    "a\r\nx",
    "a\x7fx",
    "a\x85x",
    "a\ud800x",
    "x" * 1025,
    None,
    3,
    ["a"],
    b"a",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=lambda name: ascii(name)[:40])
def test_hostile_names_are_refused(name: object, tmp_path: Path) -> None:
    index = tmp_path / "some.index.json"
    with pytest.raises(UntrustedPathError, match="the shard of the index") as caught:
        safe_name(name, what="shard of the index", path=index)
    check_message(caught.value, index)
    with pytest.raises(UntrustedPathError):
        safe_join(tmp_path, name)


def test_join_follows_links_inside_the_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "real").write_text("x")
    (tmp_path / "link").symlink_to("sub/real")
    (tmp_path / "folder").symlink_to("sub")
    for name in ("link", "folder/real", "sub/real", "not-there", "no/such/file"):
        assert safe_join(tmp_path, name) == tmp_path / name


def test_join_accepts_a_root_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("x")
    (tmp_path / "root").symlink_to("real")
    assert safe_join(tmp_path / "root", "file").read_text() == "x"


@pytest.mark.parametrize("target", ["../secret", "/etc/passwd", "..", "../root-beside/x"])
def test_join_refuses_links_out(target: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (tmp_path / "root-beside").mkdir()
    root.mkdir()
    (root / "model.bin").symlink_to(target)
    (root / "folder").symlink_to("..")
    for name in ("model.bin", "folder/secret"):
        with pytest.raises(UntrustedPathError, match="a link out of its folder") as caught:
            safe_join(root, name)
        check_message(caught.value, root / name)


@pytest.mark.parametrize("blobs", ["models--x--y/blobs", "blobs"])
@pytest.mark.parametrize("name", ["config.json", "sub/config.json"])
def test_join_knows_the_cache_of_the_hub(blobs: str, name: str, tmp_path: Path) -> None:
    root = tmp_path / "models--x--y" / "snapshots" / ("a" * 40)
    link = root / name
    blob = tmp_path / blobs / "b10b"
    link.parent.mkdir(parents=True)
    blob.parent.mkdir(parents=True)
    blob.write_text("{}")
    link.symlink_to(os.path.relpath(blob, link.parent))
    assert safe_join(root, name) == link
    assert safe_join(link.parent, link.name) == link
    (root / "other").symlink_to(tmp_path / "models--x--y" / "refs")
    (root / "wide").symlink_to(tmp_path / "models--p--q" / "blobs" / "x")
    for out in ("other", "wide"):
        with pytest.raises(UntrustedPathError):
            safe_join(root, out)


def make_folder(path: Path) -> None:
    path.mkdir()


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket may not be long
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(here)


OTHER_KINDS = [
    (make_folder, "a folder"),
    (make_fifo, "a FIFO"),
    (make_device, "a device"),
    (make_socket, "a socket"),
]


@pytest.mark.parametrize(("make", "kind"), OTHER_KINDS, ids=[kind for _, kind in OTHER_KINDS])
def test_only_regular_files_are_opened(make: Callable[[Path], None], kind: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    make(path)
    with pytest.raises(WeightsFormatError, match=f"is {kind}, not a file") as caught:
        open_regular(path)
    check_message(caught.value, path)
    with pytest.raises(ConfigError, match=kind):
        read_json(path)


def make_nothing(path: Path) -> None:
    path.unlink(missing_ok=True)


def make_dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


def make_under_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("a file where a folder should be")


ABSENT = [
    (make_nothing, "does not exist"),
    (make_dangling, "is a link to nothing"),
    (make_loop, "is a link that leads back to itself"),
    (make_under_file, "cannot be opened"),
]


@pytest.mark.parametrize(("make", "reason"), ABSENT, ids=[reason for _, reason in ABSENT])
def test_what_is_not_there_is_a_source_error(make: Callable[[Path], None], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "config.json"
    path.parent.mkdir()
    make(path)
    with pytest.raises(SourceError, match=reason) as caught:
        open_regular(path)
    check_message(caught.value, path)
    with pytest.raises(ConfigError, match=reason) as config:
        read_json(path)
    check_message(config.value, path)
    assert isinstance(config.value.__cause__, OSError)


def test_a_name_too_long_or_with_nul_is_no_raw_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be opened"):
        open_regular(tmp_path / ("x" * 300))
    with pytest.raises(UntrustedPathError, match="NUL"):
        open_regular(f"{tmp_path}/a\0b")
    with pytest.raises(SourceError) as caught:
        open_regular("d/" * 2000 + "config.json")
    assert "config.json" in str(caught.value)
    assert len(str(caught.value)) < 2048


def test_size_is_checked_before_reading(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(ResourceLimitError, match="1073741824 bytes") as caught:
        read_json(path)
    check_message(caught.value, path)
    assert caught.value.limit == 16 << 20


def test_stamp_and_reading(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))
    fd = open_regular(path, max_bytes=100)
    try:
        before = stamp_of(fd)
        assert before.size == 100
        assert read_up_to(fd, 10) == bytes(range(10))
        assert read_up_to(fd, 1000, 90) == bytes(range(90, 100))
        assert read_up_to(fd, 10, 100) == read_up_to(fd, 10, 200) == read_up_to(fd, 0) == b""
        target = bytearray(20)
        assert fill(fd, memoryview(target), 90) == 10
        assert target[:10] == bytes(range(90, 100))
        assert stamp_of(fd) == before
        with path.open("ab") as file:
            file.write(b"x")
        assert stamp_of(fd) != before
    finally:
        os.close(fd)


RECOGNISED = {
    "empty": b"",
    "all zero bytes": bytes(600),
    "a Git LFS pointer (run 'git lfs pull')": b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 5\n",
    "an HTML page": b"\n <!DOCTYPE HTML><html>",
    "an XML document": b"<?xml version='1.0'?><Error/>",
    "a PyTorch zip archive": b"PK\x03\x04" + bytes(26) + b"archive/data.pkl",
    "a zip archive": b"PK\x03\x04" + bytes(26) + b"word/document.xml",
    "an empty zip archive": b"PK\x05\x06" + bytes(18),
    "a pickle": b"\x80\x04\x95" + bytes(10),
    "a PyTorch file of the legacy format (a pickle)": b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02",
    "gzip": b"\x1f\x8b\x08",
    "zstd": b"\x28\xb5\x2f\xfd",
    "a GGUF file": b"GGUF\x03\0\0\0",
    "an HDF5 file": b"\x89HDF\r\n\x1a\n",
    "a JSON document": b' \n{"a": 1}',
    "a TAR archive": b"sys_info".ljust(257, b"\0") + b"ustar\0" + bytes(249),
    "a NumPy array": b"\x93NUMPY\x01\0",
    "UTF-16 text": '{"a": 1}'.encode("utf-16"),
    "a safetensors file": (2).to_bytes(8, "little") + b"{}",
    "a msgpack file": b"\x82\xa4bert\x81",
    "a text file": b"Entry not found",
    "white space only": b"  \n",
    None: bytes(range(128, 256)) * 4,
}


@pytest.mark.parametrize(("kind", "head"), RECOGNISED.items(), ids=map(str, RECOGNISED))
def test_recognise(kind: str | None, head: bytes) -> None:
    assert recognise(head) == kind


BAD_JSON: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "white space": (b" \n ", "is white space only"),
    "truncated": (b'{"a": 1, "b', "line 1 column"),
    "html": (b"<!doctype html><html><body>not found</body></html>", "is an HTML page, not JSON"),
    "lfs": (RECOGNISED["a Git LFS pointer (run 'git lfs pull')"], "a Git LFS pointer"),
    "pickle": (b"\x80\x04\x95abc", "is a pickle, not JSON"),
    "utf-16": ('{"a": 1}'.encode("utf-16"), "UTF-16"),
    "utf-16 without mark": ('{"a": 1}'.encode("utf-16-le"), "NUL byte at offset 1"),
    "zeros": (bytes(64), "is all zero bytes, not JSON"),
    "trailing zeros": (b'{"a": 1}\0\0', "NUL byte at offset 8"),
    "latin-1": ('{"a": "é"}'.encode("latin-1"), "not UTF-8 at byte 7"),
    "array": (b"[1]", "must hold a JSON object, not an array"),
    "null": (b"null", "must hold a JSON object, not null"),
    "string": (b'"a"', "not a string"),
    "true": (b"true", "not a boolean"),
    "number": (b"3", "not a number"),
    "trailing": (b'{"a": 1} x', "line 1 column 10: Extra data"),
    "two": (b'{"a": 1}\n{"b": 2}', "line 2 column 1: Extra data"),
    "text": (b"Entry not found", "line 1 column 1"),
    "duplicate": (b'{"a": 1, "a": 1}', "the key 'a' appears twice"),
    "duplicate inside": (b'{"b": [{"a": 1, "a": 2}]}', "the key 'a' appears twice"),
    "duplicate escaped": (b'{"a": 1, "\\u0061": 2}', "the key 'a' appears twice"),
    "nan": (b'{"a": NaN}', "NaN is not JSON"),
    "infinity": (b'{"a": [Infinity]}', "Infinity is not JSON"),
    "minus infinity": (b'{"a": -Infinity}', "-Infinity is not JSON"),
    "overflow": (b'{"a": 1e999}', "1e999 is beyond"),
    "digits": (b'{"a": ' + b"9" * 5000 + b"}", "more than 4300 digits"),
    "half a pair": (b'{"a": "\\ud83d"}', "half of a surrogate pair"),
    "half a pair as key": (b'{"\\uDC00": 1}', "half of a surrogate pair"),
    "raw control": (b'{"a": "\x01"}', "Invalid control character"),
    "comment": (b'{"a": 1} // x', "Extra data"),
    "single quotes": (b"{'a': 1}", "line 1 column 2"),
    "trailing comma": (b'{"a": 1,}', "line 1 column"),
    "long key": (b'{"' + b"k" * 9000 + b'": 1, "' + b"k" * 9000 + b'": 1}', "appears twice"),
}


@pytest.mark.parametrize("name", BAD_JSON)
@pytest.mark.parametrize("error", [ConfigError, ShardIndexError])
def test_bad_json_is_refused(name: str, error: type[PretrainedError], tmp_path: Path) -> None:
    raw, reason = BAD_JSON[name]
    path = tmp_path / "config.json"
    path.write_bytes(raw)
    with pytest.raises(error) as caught:
        read_json(path, error=error)
    check_message(caught.value, path)
    assert reason in str(caught.value)


@pytest.mark.parametrize("depth", [65, 1000, 200_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_depth(depth: int, opening: str, closing: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    levels = depth - 1
    path.write_text('{"a":' + opening * levels + "1" + closing * levels + "}")
    with pytest.raises(ConfigError, match="nested deeper than 64 levels") as caught:
        read_json(path)
    check_message(caught.value, path)
    path.write_text('{"a":' + opening * levels)
    with pytest.raises(ConfigError, match="nested deeper than 64 levels"):
        read_json(path)


def test_depth_counts_no_brackets_in_strings() -> None:
    text = {"a": "[" * 100, 'b"\\': '\\"{[' * 100, "c": ["{"] * 70, "\\": "[["}
    assert parse_json(json.dumps(text), path="x") == text
    levels = 63
    assert parse_json('{"a":' + "[" * levels + "]" * levels + ', "b": "[[["}', path="x")


def test_depth_is_bounded_by_the_interpreter_where_the_caller_bounds_it_too_high() -> None:
    text = '{"a":' + "[" * 200_000 + "]" * 200_000 + "}"
    with pytest.raises(ConfigError, match="nested deeper than"):
        parse_json(text, path="x", max_depth=1_000_000)


def test_depth_survives_a_small_stack() -> None:
    caught: list[BaseException] = []

    def parse() -> None:
        try:
            parse_json("[" * 5_000_000, path="x", max_values=10**9)
        except ConfigError as error:
            caught.append(error)

    size = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=parse)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(size)
    assert "nested deeper" in str(caught[0])


@pytest.mark.parametrize("piece", ["[]", "0", "{}"])
def test_many_values(piece: str) -> None:
    text = '{"a":[' + ",".join([piece] * 1_000_001) + "]}"
    with pytest.raises(ResourceLimitError, match="more than 1000000 values") as caught:
        parse_json(text, path="config.json")
    assert caught.value.limit == 1_000_000


def test_a_disk_that_fails_and_a_file_that_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")

    def fail(fd: int, limit: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(files, "read_up_to", fail)
    with pytest.raises(ConfigError, match="cannot be read: Input/output error") as caught:
        read_json(path)
    check_message(caught.value, path)
    monkeypatch.setattr(files, "read_up_to", lambda fd, limit: b" " * limit)
    with pytest.raises(ResourceLimitError, match="more than 10 bytes"):
        read_json(path, max_bytes=10)


def test_good_json_loads(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    content = {"a": [1, -2, 0.5, 1e-3, True, None], "b": {"__float__": "Infinity"}, "名": "🤗", "c": 10**4000, "d": {}}
    for ascii_only in (True, False):
        for mark in (b"", b"\xef\xbb\xbf"):
            path.write_bytes(mark + json.dumps(content, ensure_ascii=ascii_only).encode())
            assert read_json(path) == content
    assert parse_json('{"a": "\\u0000"}', path=path) == {"a": "\0"}
    assert list(parse_json('{"b": 1, "a": 2}', path=path)) == ["b", "a"]


@pytest.fixture
def no_digit_limit() -> Iterator[None]:
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    yield
    sys.set_int_max_str_digits(limit)


@pytest.mark.usefixtures("no_digit_limit")
def test_digits_are_bounded_where_the_interpreter_does_not() -> None:
    with pytest.raises(ConfigError, match="4300 digits"):
        parse_json('{"a": ' + "1" * 4301 + "}", path="x")
    assert parse_json('{"a": ' + "1" * 4300 + "}", path="x")["a"] > 0


def test_nothing_is_left_open(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("[")
    (tmp_path / "fifo").mkdir()
    before = len(list(FDS.iterdir()))
    for _ in range(100):
        for name in ("config.json", "fifo", "absent"):
            with pytest.raises(ConfigError):
                read_json(tmp_path / name)
        with pytest.raises(ResourceLimitError):
            open_regular(path, max_bytes=0)
    assert len(list(FDS.iterdir())) == before
