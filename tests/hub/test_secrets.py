"""Tokens and signatures: who gets them, and where they never show up."""

from __future__ import annotations

import copy
import logging
import pickle
import traceback
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from loopback_hub import Hub, Store, Web, online

from pretrained.errors import HubError, InvalidOptionError, PretrainedError, UntrustedPathError
from pretrained.hub.auth import access_to
from pretrained.hub.connections import Connections
from pretrained.hub.ref import resolve
from pretrained.hub.trouble import cause_of
from pretrained.hub.urls import origin_of, redacted
from pretrained.options import LoadOptions, SourceOptions, split_load_options
from pretrained.source_options import Secret

TOKEN = "hf_" + "x9Y8" * 8
PLAIN = "a-token-of-another-kind"


@pytest.fixture
def stored(quiet: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """A token that the user logged in with, for the hub of HF_ENDPOINT."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return TOKEN


def everything(hub: Hub, tmp_path: Path, **options: Any) -> None:
    """Whatever asks a hub: resolve, a small file, a large one, a stream."""
    snapshot = resolve("org/name", online(hub, tmp_path, **options))
    snapshot.fetch(snapshot.names())
    stream = resolve("org/name", online(hub, tmp_path / "x", stream=True, **options))
    source = stream.source("model.safetensors")
    assert source is not None
    from pretrained.checkpoint.formats.safetensors import read_remote_header

    read_remote_header(source)


@pytest.mark.parametrize("token", [TOKEN, PLAIN])
def test_a_token_goes_to_its_hub_and_to_nobody_else(token: str, hub: Hub, store: Store, tmp_path: Path) -> None:
    everything(hub, tmp_path, token=token)
    assert hub.tokens == {f"Bearer {token}"}
    assert store.requests and store.tokens == {None}
    hub.tokens.clear()
    everything(hub, tmp_path / "again", token=False)
    assert hub.tokens == {None}


def test_the_stored_token_is_for_the_usual_hub(
    stored: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", stored)
    resolve("org/name", online(hub, tmp_path, token=None))
    assert hub.tokens == {None}  # another endpoint than HF_ENDPOINT gets it only by name
    hub.tokens.clear()
    resolve("org/name", online(hub, tmp_path, token=True))
    assert hub.tokens == {f"Bearer {stored}"}
    hub.tokens.clear()
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    resolve("org/name", SourceOptions(cache_dir=tmp_path))
    assert hub.tokens == {f"Bearer {stored}"}
    hub.tokens.clear()
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    resolve("org/name", SourceOptions(cache_dir=tmp_path))
    assert hub.tokens == {None}


def test_a_token_that_is_insisted_on(quiet: None) -> None:
    with pytest.raises(HubError, match="token=True, and no token is stored for http://h:1"):
        access_to(SourceOptions(endpoint="http://h:1", token=True))


def test_a_web_server_gets_no_token(stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Web({"/m/config.json": b"{}"})
    web = Web({})
    with other.running(), web.running():
        web.redirect = other.url
        snapshot = resolve(f"http://user:{PLAIN}@{web.url[7:]}/m", SourceOptions(token=TOKEN, stream=True))
        assert "config.json" in snapshot.names()
        assert snapshot.path("config.json").read_bytes() == b"{}"
        assert PLAIN not in str(snapshot.path("config.json")) + repr(snapshot)
    assert {value.partition(" ")[0] for value in web.tokens if value} == {"Basic"}  # the URL's own, and only there
    assert other.tokens == {None}


@pytest.mark.parametrize(
    ("location", "message"),
    [("file:///etc/passwd", "redirects to file://"), ("gopher://h/x", "redirects to gopher://"), ("/loop", "6 times")],
)
def test_redirects_that_are_not_followed(location: str, message: str, quiet: None) -> None:
    web = Web({})
    web.answer = lambda request: web.send(request, b"", 302, {"Location": location})  # type: ignore[method-assign]
    with web.running(), pytest.raises(HubError, match=message):
        Connections().open("GET", f"{web.url}/x")


def test_https_never_becomes_http(monkeypatch: pytest.MonkeyPatch, quiet: None) -> None:
    class Answered:
        status, headers, was_redirected = 302, {"Location": "http://h/x"}, False

        def close(self) -> None:
            """Nothing."""

    connections = Connections({origin_of("https://h"): f"Bearer {TOKEN}"})
    asked: list[str] = []

    def send(method: str, url: str, headers: Any) -> Any:
        asked.append(url)
        return Answered()

    monkeypatch.setattr(connections, "_send", send)
    with pytest.raises(HubError, match="https leads to https alone"):
        connections.open("GET", "https://h/x?signature=1")
    assert asked == ["https://h/x?signature=1"]
    assert TOKEN not in repr(connections)


def messages_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + str(error) + repr(error) + str(vars(error))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
def test_no_error_shows_a_token(
    status: int, hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pretrained.hub.ranges.PAUSE", 0.0)
    with caplog.at_level(logging.DEBUG):
        for token in (TOKEN, PLAIN):
            snapshot = resolve("org/name", online(hub, tmp_path / str(len(token)), token=token))
            hub.status = status
            for attempt in (
                lambda token=token: resolve("org/name", online(hub, tmp_path / "other", token=token)),
                lambda snapshot=snapshot: snapshot.path("model.safetensors"),
            ):
                with pytest.raises(PretrainedError) as caught:
                    attempt()
                shown = messages_of(caught.value)
                assert token not in shown and token.encode().hex() not in shown
                assert token.encode() not in pickle.dumps(caught.value)
            hub.status = None
    text = caplog.text
    assert TOKEN not in text and PLAIN not in text


def test_no_error_and_no_log_shows_a_signature(
    hub: Hub, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pretrained.hub.ranges.PAUSE", 0.0)
    with caplog.at_level(logging.DEBUG):
        resolve("org/name", online(hub, tmp_path)).path("model.safetensors")
        store.lifetime = 0
        with pytest.raises(HubError, match=r"answers 403 \(forbidden\)") as caught:
            resolve("org/name", online(hub, tmp_path / "x")).path("model.safetensors")
    # The HTTP library of huggingface_hub logs the headers of answers, but only to those who debug it.
    logged = [r.getMessage() for r in caplog.records if r.name.startswith("pretrained") or r.levelno >= logging.INFO]
    shown = messages_of(caught.value) + "".join(logged)
    assert len(store.signatures) >= 2 and not any(signature in shown for signature in store.signatures)


def test_causes_that_may_not_be_shown() -> None:
    assert cause_of(OSError("https://s3/x?Signature=1")) is None
    outer = OSError("no")
    outer.__cause__ = ValueError("https://s3/x?Signature=1")
    assert cause_of(outer) is None
    plain = OSError("no")
    assert cause_of(plain) is plain


def test_secrets_are_not_shown_or_pickled() -> None:
    options, _ = split_load_options(
        {"token": PLAIN, "storage_options": {"secret": "s3cret"}, "revision": "v1", "stream": True}
    )
    assert PLAIN not in repr(options) and "s3cret" not in repr(options)
    assert copy.deepcopy(options).source.token == Secret(PLAIN)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        raw = pickle.dumps(options, protocol)
        assert PLAIN.encode() not in raw and b"s3cret" not in raw
        back: LoadOptions = pickle.loads(raw)
        assert (back.source.token, back.source.storage_options, back.source.revision) == (None, None, "v1")
    secret = Secret(PLAIN)
    assert PLAIN not in f"{secret} {secret!r} {[secret]}"
    assert pickle.loads(pickle.dumps(secret)) is None
    assert secret.reveal() == PLAIN and hash(secret) == hash(Secret(PLAIN)) and secret != PLAIN


@pytest.mark.parametrize("token", ["", "a b\r\nX: y", "tök", "a\0"])
def test_tokens_that_no_request_can_hold(token: str) -> None:
    with pytest.raises(InvalidOptionError, match="characters that no token has") as caught:
        access_to(SourceOptions(endpoint="http://h", token=token))
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@h:8/a/b?sig=1#x", "https://h:8/a/b"),
        ("s3://key:secret@bucket/a?x=1", "s3://bucket/a"),
        ("no-url?x=1", "no-url"),
        ("http://[bad", "a URL"),
    ],
)
def test_urls_as_they_are_shown(url: str, shown: str) -> None:
    assert redacted(url) == shown


def test_names_in_a_listing_that_lead_out(hub: Hub, tmp_path: Path) -> None:
    """A hub is as little trusted as a file: a name of its listing is joined to the cache's path."""
    for name in ("../../evil", "/etc/x", "a/../b", "a\\..\\b", "c:/x", "a\nb"):
        hub.extra_names = [name]
        with pytest.raises(UntrustedPathError, match="must be plain words"):
            resolve("org/name", online(hub, tmp_path))


def test_a_proxy_is_used_and_its_password_not_shown(hub: Hub, tmp_path: Path, quiet: None) -> None:
    """`proxies=` goes for the bytes that we read ourselves."""
    proxied: list[str] = []
    proxy = Web({})

    def answer(request: Any) -> None:
        proxied.append(request.path)
        proxy.send(request, b"", 502)

    proxy.answer = answer  # type: ignore[method-assign]
    with proxy.running():
        url = f"http://me:{PLAIN}@{proxy.url[7:]}"
        with pytest.warns(DeprecationWarning, match="proxies= goes for the bytes of weights alone"):
            options, _ = split_load_options({"proxies": {"http": url}, "stream": True, "endpoint": hub.url})
        assert PLAIN not in repr(options)
        snapshot = resolve("org/name", options.source)
        source: Any = snapshot.source("model.safetensors")
        answered = source._connections.open("GET", f"{hub.url}/x?q=1")
        assert answered.status == 502 and proxied == [f"{hub.url}/x?q=1"]
