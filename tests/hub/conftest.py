"""A hub and a store on loopback, and an environment in which only they are asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from loopback_hub import COMMIT, OTHER, Hub, Store, weights

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No proxy, no stored token, no bars, and not the caches of whoever runs the tests."""
    for name in (*PROXIES, "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    with made.running():
        yield made


@pytest.fixture
def hub(tmp_path: Path, store: Store, quiet: None) -> Iterator[Hub]:
    """org/name with a config, weights in the store, and another commit that a push could make the branch."""
    config = {"model_type": "bert", "hidden_size": 24}
    made = Hub(
        {
            COMMIT: {
                "config.json": json.dumps(config).encode(),
                "model.safetensors": weights(tmp_path, 1.0),
                "pytorch_model.bin": b"never fetched",
                "sub/config.json": json.dumps(config | {"hidden_size": 48}).encode(),
            },
            OTHER: {"config.json": json.dumps(config).encode(), "model.safetensors": weights(tmp_path, 2.0)},
        },
        store,
    )
    made.lfs_from = 70
    with made.running():
        yield made
