"""Hubs, stores and web servers that are busy, drip, break off, lie, or are none; each is noticed, in time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from loopback_hub import COMMIT, Hub, Server, Store, Web, online, weights

from pretrained import load_into
from pretrained.errors import CheckpointChangedError, HubError, UntrustedPathError
from pretrained.hub import asking, connections, ranges
from pretrained.hub.connections import Connections, TransportError
from pretrained.hub.ref import resolve
from pretrained.options import SourceOptions

Answer = Callable[[Any], None]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "PAUSE", 0.001)
    monkeypatch.setattr(asking, "PAUSE", 0.001)
    monkeypatch.setattr("pretrained.hub.url_store.PAUSE", 0.001)


def instead(server: Server, answer: Callable[[Any, Answer], None]) -> None:
    """Lets `answer` answer, which is given the request and how the server answers it."""
    usual = server.answer
    server.answer = lambda request: answer(request, usual)  # type: ignore[method-assign]


def busy(server: Server, times: int, headers: dict[str, str], status: int = 503) -> None:
    left = [times]

    def answer(request: Any, usual: Answer) -> None:
        if not left[0]:
            return usual(request)
        left[0] -= 1
        server.send(request, b"", status, headers)

    instead(server, answer)


def drip(server: Server, first: bytes, more: bytes, when: Callable[[str], bool] = lambda path: True) -> None:
    """Answers with `first`, and then with `more` every 20 ms."""

    def answer(request: Any, usual: Answer) -> None:
        if not when(request.path):
            return usual(request)
        request.wfile.write(first)
        for _ in range(500):
            request.wfile.write(more)
            request.wfile.flush()
            time.sleep(0.02)

    instead(server, answer)


class Two(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(2))


def loaded(hub: Hub, tmp_path: Path, **options: Any) -> list[float]:
    module = Two()
    load_into(module, "org/name", endpoint=hub.url, token=False, cache_dir=tmp_path / "cache", **options)
    return module.w.tolist()


# Busy


@pytest.mark.parametrize(("status", "times"), [(503, 1), (429, 1), (500, 2)])
def test_a_hub_that_is_busy_is_asked_again(status: int, times: int, hub: Hub, tmp_path: Path) -> None:
    busy(hub, times, {"Retry-After": "0"}, status)
    assert resolve("org/name", online(hub, tmp_path)).commit == COMMIT


def test_a_hub_that_asks_for_time_is_given_it(hub: Hub, tmp_path: Path) -> None:
    busy(hub, 1, {"Retry-After": "1"}, 429)
    since = time.monotonic()
    assert resolve("org/name", online(hub, tmp_path)).commit == COMMIT
    assert time.monotonic() - since >= 1


def test_a_hub_that_asks_for_too_much_time(hub: Hub, tmp_path: Path) -> None:
    busy(hub, 9, {"Retry-After": "3600"}, 429)
    with pytest.raises(HubError, match="too many requests") as caught:
        resolve("org/name", online(hub, tmp_path))
    assert caught.value.status == 429 and len(hub.requests) == 1


def test_a_refusal_is_final(hub: Hub, tmp_path: Path) -> None:
    busy(hub, 9, {}, 403)
    with pytest.raises(HubError, match="refused"):
        resolve("org/name", online(hub, tmp_path))
    assert len(hub.requests) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_store_that_asks_for_too_much_time(stream: bool, hub: Hub, store: Store, tmp_path: Path) -> None:
    busy(store, 9, {"Retry-After": "99999"}, 429)
    with pytest.raises(HubError, match="answers 429, and asks to wait for 99999 s") as caught:
        loaded(hub, tmp_path, stream=stream)
    assert caught.value.status == 429 and len(store.requests) == 1


def test_a_web_server_that_is_busy(tmp_path: Path, quiet: None) -> None:
    web = Web({"/m/config.json": b"{}", "/m/model.safetensors": weights(tmp_path)})
    with web.running():
        busy(web, 2, {"Retry-After": "0"}, 429)
        snapshot = resolve(f"{web.url}/m", SourceOptions(cache_dir=tmp_path))
        assert snapshot.path("config.json").read_bytes() == b"{}"


# Dripping


@pytest.mark.parametrize(
    ("first", "more"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nX: ", b"x", id="headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" ", id="body"),
    ],
)
def test_a_hub_that_drips(first: bytes, more: bytes, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "DEADLINE", 0.3)
    drip(hub, first, more)
    since = time.monotonic()
    with pytest.raises(HubError, match="no answer after"):
        resolve("org/name", online(hub, tmp_path))
    assert time.monotonic() - since < 5


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("first", "more"),
    [
        pytest.param(b"HTTP/1.1 206 OK\r\nX: ", b"x", id="headers"),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n", id="continue"),
    ],
)
def test_a_store_that_drips_headers(
    first: bytes, more: bytes, stream: bool, hub: Hub, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT", 0.3)
    drip(store, first, more)
    since = time.monotonic()
    with pytest.raises(HubError, match="no answer in time"):
        loaded(hub, tmp_path, stream=stream)
    assert time.monotonic() - since < 5


def test_a_stream_that_ends_with_its_connection_can_be_broken_off(tmp_path: Path, quiet: None) -> None:
    web = Web({})
    drip(web, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"x")
    with web.running():
        answer = Connections().open("GET", f"{web.url}/x")
        answer.abort()
        since = time.monotonic()
        with pytest.raises(TransportError):
            while answer.readinto(memoryview(bytearray(1 << 20))):
                pass
            raise TransportError("it ended")
        answer.close()
        assert time.monotonic() - since < 5


# Breaking off


def test_a_whole_file_that_is_cut_off_is_fetched_again(hub: Hub, store: Store, tmp_path: Path) -> None:
    store.ranges = False
    answers = [0]

    def answer(request: Any, usual: Answer) -> None:
        answers[0] += 1
        if answers[0] != 2:
            return usual(request)
        (content,) = store.content.values()
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[: len(content) // 2])
        request.close_connection = True

    instead(store, answer)
    assert loaded(hub, tmp_path) == [1.0, 1.0]
    assert answers[0] == 3


# Lies


def test_a_stream_of_another_content(hub: Hub, tmp_path: Path) -> None:
    """A hub that gives a file of another commit under the name of this one: the same size, and other numbers."""
    usual, other = hub.resolve, weights(tmp_path, 3.0)
    hub.resolve = lambda request, content, commit: usual(  # type: ignore[method-assign]
        request, other if len(content) == len(other) else content, commit
    )
    with pytest.raises(CheckpointChangedError, match=r"model\.safetensors has the checksum [0-9a-f]{16}… and had"):
        loaded(hub, tmp_path, stream=True)


@pytest.mark.parametrize("location", ["http://host:99999/x", "http://[::1/x"])
def test_a_redirect_to_what_is_no_url(location: str, tmp_path: Path, quiet: None) -> None:
    web = Web({})
    instead(web, lambda request, usual: web.send(request, b"", 302, {"Location": location}))
    with web.running(), pytest.raises(HubError, match="redirects to what is no URL"):
        Connections().open("GET", f"{web.url}/x")


def listing_of(change: Callable[[dict[str, Any]], Any]) -> Callable[[Hub], None]:
    """What makes a hub's description of its repository another."""

    def apply(hub: Hub) -> None:
        def answer(request: Any, usual: Answer) -> None:
            if not request.path.startswith("/api"):
                return usual(request)
            siblings = [hub.sibling(name, content) for name, content in hub.commits[COMMIT].items()]
            body = change({"id": hub.repo, "sha": COMMIT, "siblings": siblings})
            hub.send(request, body if isinstance(body, bytes) else json.dumps(body).encode())

        instead(hub, answer)

    return apply


def with_file(**item: Any) -> Callable[[Hub], None]:
    return listing_of(lambda info: {**info, "siblings": [*info["siblings"], {"blobId": "0" * 40, "size": 1, **item}]})


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(listing_of(lambda info: [1]), id="a list"),
        pytest.param(listing_of(lambda info: b'{"id": "or'), id="cut off"),
        pytest.param(listing_of(lambda info: b"<html>Log in</html>"), id="html"),
        pytest.param(listing_of(lambda info: {**info, "siblings": "x"}), id="files are text"),
        pytest.param(with_file(rfilename=3), id="a name is a number"),
        pytest.param(with_file(), id="no name"),
        pytest.param(with_file(rfilename="x", size=-1), id="negative size"),
        pytest.param(with_file(rfilename="x", size=2**70), id="huge size"),
        pytest.param(with_file(rfilename="x", size=1.5), id="fractional size"),
        pytest.param(with_file(rfilename="x", lfs=[1]), id="lfs is a list"),
    ],
)
def test_what_is_no_hub(spoil: Callable[[Hub], None], hub: Hub, tmp_path: Path) -> None:
    spoil(hub)
    with pytest.raises(HubError, match=r"no hub.*look at HF_ENDPOINT and endpoint="):
        resolve("org/name", online(hub, tmp_path))


@pytest.mark.parametrize("name", ["runs/10:30:00.log", "model:v1.bin"])
def test_a_file_that_cannot_be_here_is_left_out(name: str, hub: Hub, tmp_path: Path) -> None:
    with_file(rfilename=name)(hub)
    names = resolve("org/name", online(hub, tmp_path)).names()
    assert name not in names and "model.safetensors" in names


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../b", "..\\x", ":/..", "a:/../b", "x:/../b", "c:x"])
def test_a_file_that_leads_out_is_refused(name: str, hub: Hub, tmp_path: Path) -> None:
    with_file(rfilename=name)(hub)
    with pytest.raises(UntrustedPathError):
        resolve("org/name", online(hub, tmp_path))


# A save to a URL


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("s3://key:SECRET@bucket/x", r"'s3://bucket/x' is a URL.*fsspec\.url_to_fs"),
        ("memory://x", "fsspec"),
        ("hf://org/name", r"push_to_hub\('organisation/name'\)"),
        (Path("s3://bucket/x"), "is a URL"),
    ],
)
def test_a_save_to_a_url_is_refused(url: Any, hint: str, elsewhere: Path) -> None:
    """Not a folder called s3: in the working directory, which whoever asked for it would never find."""
    from pretrained import BertConfig, BertModel
    from pretrained.errors import InvalidOptionError

    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=10)
    for what in (config, BertModel(config)):
        with pytest.raises(InvalidOptionError, match=hint) as caught:
            what.save_pretrained(url)
        assert "SECRET" not in str(caught.value)
    assert list(elsewhere.iterdir()) == []
