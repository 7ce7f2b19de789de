"""What a user writes, and the snapshot that it means."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from pretrained.errors import InvalidOptionError, OptionError, PretrainedError, SourceError, UntrustedPathError
from pretrained.hub import ref as module
from pretrained.hub.ref import is_local, resolve
from pretrained.hub.snapshot import FolderSnapshot, LazySnapshot, check_relative
from pretrained.hub.urls import hub_place
from pretrained.options import SourceOptions

HERE = SourceOptions()


class Shelf:
    """A store that notes what it is asked for."""

    def __init__(self) -> None:
        self.fetched: list[str] = []

    def path(self, name: str) -> Path:
        self.fetched.append(name)
        return Path("/cache") / name

    def fetch(self, names: Iterable[str]) -> None:
        self.fetched += names

    def source(self, name: str) -> None:
        """It is not streamed."""


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Repositories that would have been asked for."""
    asked: list[str] = []

    def open_repository(repo_id: str, source: SourceOptions, path: str = "") -> LazySnapshot:
        asked.append(repo_id)
        return LazySnapshot(repo_id, "0" * 40, {}, Shelf())

    monkeypatch.setattr("pretrained.hub.repository.open_repository", open_repository)
    return asked


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "inner" / "deep").mkdir(parents=True)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "inner" / "deep" / "x").write_text("")
    return tmp_path


def refuse(ref: Any, kind: type[PretrainedError], source: SourceOptions = HERE) -> PretrainedError:
    with pytest.raises(kind) as caught:
        resolve(ref, source)
    assert len(str(caught.value).encode()) <= 2048
    assert all(char.isprintable() or char == "\n" for char in str(caught.value))
    return caught.value


def test_a_folder(folder: Path) -> None:
    for ref in (folder, str(folder), f"{folder}/"):
        snapshot = resolve(ref, HERE)
        assert isinstance(snapshot, FolderSnapshot)
        assert snapshot.folder == folder
        assert snapshot.names() == ["config.json"]
        assert snapshot.path("config.json") == folder / "config.json"
        assert snapshot.name == str(ref)
        assert (snapshot.commit, snapshot.only) == (None, None)
    assert str(folder) in repr(resolve(folder, HERE))


def test_a_file(folder: Path) -> None:
    snapshot = resolve(folder / "config.json", HERE)
    assert isinstance(snapshot, FolderSnapshot)
    assert (snapshot.folder, snapshot.only, snapshot.name) == (folder, "config.json", str(folder / "config.json"))


def test_what_tensorflow_calls_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_hub: list[str]) -> None:
    """`folder/model.ckpt` is no file; its index is."""
    for name in ("model.ckpt.index", "variables.index", "gpt2.index"):
        (tmp_path / name).write_text("")
    for ref in (tmp_path / "model.ckpt", f"{tmp_path}/variables"):
        found = resolve(ref, HERE)
        assert isinstance(found, FolderSnapshot)
        assert (found.root, found.only) == (tmp_path, f"{Path(ref).name}.index")
    monkeypatch.chdir(tmp_path)
    assert resolve("model.ckpt", HERE).folder == Path()
    assert no_hub == []
    resolve("gpt2", HERE)
    assert no_hub == ["gpt2"], "a name of the hub stays one"
    with pytest.raises(
        SourceError, match=r"no file or folder .*other\.ckpt; .* holds: gpt2\.index, model\.ckpt\.index"
    ):
        resolve(tmp_path / "other.ckpt", HERE)


def test_subfolders(folder: Path) -> None:
    assert resolve(folder, SourceOptions(subfolder="inner")).folder == folder / "inner"
    assert resolve(folder, SourceOptions(subfolder="inner/deep")).names() == ["x"]
    error = refuse(folder, SourceError, SourceOptions(subfolder="iner"))
    assert str(error) == f"no folder 'iner' in {folder}; folders there: inner"
    assert error.path == str(folder / "iner")
    refuse(folder, SourceError, SourceOptions(subfolder="config.json"))
    refuse(folder, SourceError, SourceOptions(subfolder="x" * 1000))
    assert refuse(folder / "config.json", InvalidOptionError, SourceOptions(subfolder="inner")).key == "subfolder"


BAD_NAMES = [
    "..",
    "../x",
    "a/../b",
    "/etc",
    "a//b",
    "a/",
    ".",
    "./a",
    "a\0b",
    "a\r\nb",
    "C:/x",
    "C:x",
    "http://x",
    "a\\..\\b",
    "x" * 5000,
    "a\x1bb",
    "a\ud800",
]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("key", ["subfolder", "revision"])
@pytest.mark.parametrize("ref", [".", "org/name"])
def test_what_must_stay_inside(name: str, key: str, ref: str, no_hub: list[str]) -> None:
    error = refuse(ref, UntrustedPathError, SourceOptions(**{key: name}))
    assert error.key == key
    assert no_hub == []


@pytest.mark.parametrize(
    "name", ["main", "v1.0", "refs/pr/5", "feature/x-y_z", "ünïcode", "日本/語", "🤗", "a b", "0" * 40]
)
def test_names_that_are_fine(name: str, tmp_path: Path) -> None:
    check_relative(name, "revision")
    (tmp_path / name).mkdir(parents=True)
    assert resolve(tmp_path, SourceOptions(subfolder=name, revision=name)).folder == tmp_path / name


def test_a_subfolder_that_is_a_link_out(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (folder / "link").symlink_to(outside)
    error = refuse(folder, UntrustedPathError, SourceOptions(subfolder="link"))
    assert "leads out of it" in str(error)
    (folder / "good").symlink_to(folder / "inner")
    assert resolve(folder, SourceOptions(subfolder="good")).folder == folder / "good"


def test_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert resolve("~/inner", HERE).folder == folder / "inner"
    error = refuse("~/nothing", SourceError)
    assert str(error) == f"no file or folder ~/nothing; {folder} holds: config.json, inner"
    assert f"no file or folder ~/iner; did you mean 'inner'? {folder} holds: " in str(refuse("~/iner", SourceError))
    refuse("~nobody-of-that-name/x", SourceError)


@pytest.mark.parametrize("name", ["ünï", "日本語", "with space", "🤗", "a:b", "-dash", "--x"])
def test_unusual_names_of_folders(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_hub: list[str]
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve(name, HERE).folder == Path(name)
    assert no_hub == []


def test_a_folder_wins_over_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_hub: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(resolve("org/name", HERE), LazySnapshot)
    assert no_hub == ["org/name"]
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert resolve("org/name", HERE).folder == Path("org/name")
    assert no_hub == ["org/name"]


@pytest.mark.parametrize("ref", ["bert-base-cased", "org/name", "org/name.with_all-signs", "a", "9/9"])
def test_names_of_repositories(ref: str, no_hub: list[str]) -> None:
    assert resolve(ref, HERE).name == ref
    assert no_hub == [ref]


@pytest.mark.parametrize(
    "ref",
    [
        "",
        "a/b/c",
        "org/",
        "/",
        "-x",
        ".x",
        "a b",
        "a:b",
        "org\\name",
        "a..b",
        "a--b",
        "x" * 97,
        "x" * 5000,
        "é",
        "a\0",
        "a\n",
        "org/na\rme",
        "org/\u202ename",
    ],
)
def test_neither_path_nor_name(ref: str, no_hub: list[str]) -> None:
    if ref == "/":
        assert resolve(ref, HERE).folder == Path("/")
        return
    assert refuse(ref, InvalidOptionError).key == "pretrained_model_name_or_path"
    assert no_hub == []


@pytest.mark.parametrize("ref", [5, None, b"x", ["a"], {"a": 1}, 1.5])
def test_other_things(ref: Any) -> None:
    assert isinstance(refuse(ref, OptionError), TypeError)


def test_paths_of_bytes() -> None:
    class Bytes:
        def __fspath__(self) -> bytes:
            return b"x"

    refuse(Bytes(), InvalidOptionError)


@pytest.mark.parametrize("ref", ["./no", "../no-such-thing", "/no/such", "~/no", Path("no"), Path("org/name")])
def test_what_looks_like_a_path_never_goes_to_the_hub(ref: Any, no_hub: list[str]) -> None:
    assert is_local(ref)
    error = refuse(ref, SourceError)
    assert error.path == os.fspath(ref)
    assert no_hub == []


def test_what_is_near(folder: Path) -> None:
    error = refuse(folder / "confg.json", SourceError)
    assert str(error).endswith(f"; did you mean 'config.json'? {folder} holds: config.json, inner")
    refuse(folder / ("x" * 300), SourceError)
    assert "holds" not in str(refuse(folder / "a" / "b", SourceError))


def test_a_folder_that_may_not_be_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_listing(path: object) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module.os, "listdir", refuse_listing)
    assert "holds: nothing" in str(refuse(folder / "x", SourceError))
    assert "folders there: none" in str(refuse(folder, SourceError, SourceOptions(subfolder="x")))
    monkeypatch.setattr(module.os, "scandir", refuse_listing)
    with pytest.raises(SourceError, match=r"cannot list .*: Permission denied"):
        resolve(folder, HERE).names()


def test_a_token_in_a_url_is_not_shown() -> None:
    token = "hf_" + "a1B2" * 8
    assert token not in str(refuse(f"https://user:{token}@huggingface.co/datasets/x", InvalidOptionError))


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("hf://org/name", ("org/name", None, "", None)),
        ("hf://name", ("name", None, "", None)),
        ("hf://models/org/name", ("org/name", None, "", None)),
        ("hf://org/name/sub/x.safetensors", ("org/name", None, "sub/x.safetensors", None)),
        ("hf://org/name@v1/sub", ("org/name", "v1", "sub", None)),
        ("hf://name@v1/sub", ("name", "v1", "sub", None)),
        ("hf://org/name@refs/pr/3/sub", ("org/name", "refs/pr/3", "sub", None)),
        ("hf://org/name@refs%2Fpr%2F3", ("org/name", "refs/pr/3", "", None)),
        ("https://huggingface.co/org/name", ("org/name", None, "", "https://huggingface.co")),
        ("https://hf.co/gpt2/", ("gpt2", None, "", "https://huggingface.co")),
        ("https://huggingface.co/gpt2/tree/main/sub", ("gpt2", "main", "sub", "https://huggingface.co")),
        ("https://huggingface.co/o/n/blob/refs%2Fpr%2F1/a/b.bin?x=1#L2", ("o/n", "refs/pr/1", "a/b.bin", "https://huggingface.co")),
        ("http://hub.example:8/base/o/n/resolve/v1/a", ("o/n", "v1", "a", "http://hub.example:8/base")),
        ("http://hub.example:8/other/o/n", None),
        ("http://hub.example:9/base/o/n", None),
        ("https://host/x", None),
        ("s3://bucket/x", None),
    ],
)  # fmt: skip
def test_what_a_url_names(url: str, place: tuple[str | None, ...] | None) -> None:
    assert hub_place(url, ("http://hub.example:8/base",)) == place


@pytest.mark.parametrize(
    "url",
    [
        "hf://datasets/org/name",
        "https://huggingface.co/spaces/org/name",
        "https://huggingface.co/org/name/discussions/1",
        "https://huggingface.co/",
        "hf://org/na me",
        "hf://or..g/name",
    ],
)
def test_urls_of_a_hub_that_name_no_model(url: str) -> None:
    with pytest.raises(InvalidOptionError, match=r"names no model|no repository name"):
        hub_place(url, ())


@pytest.mark.parametrize(
    "url",
    [
        "hf://org/name@../../x/y",
        "hf://org/name/../../etc",
        "hf://../name",
        "hf://org/name@a%2F..%2Fb/c",
        "https://huggingface.co/org/name/blob/main/..%2f..%2fx",
        "hf://org/name/a\\..\\b",
    ],
)
def test_urls_that_lead_out(url: str) -> None:
    with pytest.raises(UntrustedPathError, match="must be plain words"):
        hub_place(url, ())


def test_a_folder_wins_over_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_hub: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("INFO", "pretrained"):
        assert resolve("org/name", HERE).folder == Path("org/name")
    assert [record.message for record in caplog.records] == [
        "org/name is a folder here, which is meant; hf://org/name would be the repository of that name"
    ]
    assert no_hub == []
    assert resolve("hf://org/name", HERE).folder is None
    assert no_hub == ["org/name"]


def test_what_is_said_twice_has_to_be_the_same(no_hub: list[str]) -> None:
    assert resolve("hf://org/name@v1", SourceOptions(revision="v1")).name == "org/name"
    with pytest.raises(OptionError, match="revision='v2', and the URL says 'v1'"):
        resolve("hf://org/name@v1", SourceOptions(revision="v2"))
    with pytest.raises(OptionError, match="subfolder='a', and the URL says 'b'"):
        resolve("hf://org/name/b", SourceOptions(subfolder="a"))


# Snapshots


def test_links_and_other_things_in_a_folder(folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    (folder / "to_folder").symlink_to("inner")
    (folder / "to_file").symlink_to("config.json")
    (folder / "nowhere").symlink_to("nothing")
    os.mkfifo(folder / "fifo")
    assert resolve(folder, HERE).names() == ["config.json", "fifo", "loop", "nowhere", "to_file"]


def test_a_folder_with_too_many_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pretrained.hub.snapshot._MAX_FILES", 0)
    with pytest.raises(SourceError, match="holds 1 files; that is no checkpoint"):
        resolve(folder, HERE).names()


def test_a_repository_fetches_a_file_once() -> None:
    shelf = Shelf()
    snapshot = LazySnapshot("org/name", "c" * 40, {"config.json": "sub/config.json", "b": "sub/b"}, shelf)
    assert snapshot.names() == ["b", "config.json"]
    assert snapshot.folder is None and snapshot.source("b") is None
    assert shelf.fetched == []
    assert snapshot.path("config.json") == snapshot.path("config.json") == Path("/cache/sub/config.json")
    assert shelf.fetched == ["sub/config.json"]
    snapshot.fetch(["config.json", "b"])
    assert shelf.fetched == ["sub/config.json", "sub/b"]
    with pytest.raises(SourceError, match="no x in org/name@cccccccc"):
        snapshot.path("x")
    assert "org/name" in repr(snapshot)
