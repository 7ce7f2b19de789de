"""A Hub in this process, and requests to it without a client in between."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import TOKENS, Web

from pretrained.serve.people import People
from pretrained.serve.running import HubServer


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """A Hub that ann (of acme) and bob may write to."""
    people = People(TOKENS, {"acme": ["ann"]})
    with HubServer(tmp_path_factory.mktemp("store"), people=people, writable=True) as server:
        yield server


@pytest.fixture(scope="module")
def web(hub: HubServer) -> Web:
    """Requests to it."""
    return Web(hub)


@pytest.fixture
def repo(web: Web, request: pytest.FixtureRequest) -> str:
    """An empty repository of ann's."""
    name = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]
    assert web("POST", "/api/repos/create", {"name": f"r{name}", "organization": "ann"}, user="ann").status == 200
    return f"ann/r{name}"


@pytest.fixture
def models(tmp_path: Path, reference: Path) -> Path:
    """A folder of saved models: acme/bert and llama."""
    root = tmp_path / "models"
    shutil.copytree(reference / "bert/torch-safetensors", root / "acme/bert")
    shutil.copytree(reference / "llama/torch-safetensors-sharded", root / "llama")
    return root


@pytest.fixture
def serve(request: pytest.FixtureRequest) -> Callable[..., Web]:
    """serve(folder, …) → requests to a server of it, which ends with the test."""

    def start(root: Path, **options: Any) -> Web:
        server = HubServer(root, **options)
        server.__enter__()
        request.addfinalizer(lambda: server.__exit__(None, None, None))
        return Web(server)

    return start
