"""The stock client of this environment, in a process of its own: every step it takes, with Xet and without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pretrained.serve.people import People
from pretrained.serve.running import HubServer

SCRIPT = Path(__file__).with_name("client_steps.py")
STEPS = [
    "create",
    "upload_small",
    "upload_large",
    "upload_folder",
    "download",
    "listing",
    "tree",
    "branch",
    "tag",
    "commit",
    "pull_request",
    "merge",
    "private",
    "gated",
    "move_and_delete",
    "errors",
    "squash",
    "command",
]


@pytest.fixture(scope="module", params=["xet", "lfs"])
def results(request: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Step → what went wrong, "" if nothing did."""
    root = tmp_path_factory.mktemp("client")
    (root / "files").mkdir()
    people = People({"ann": "token-of-ann", "bob": "token-of-bob"}, {"acme": ["ann"]})
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    with HubServer(root / "store", people=people, writable=True) as hub:
        done = subprocess.run(
            [sys.executable, str(SCRIPT), "all", str(root / "files")],
            env={
                **kept,
                "HF_HOME": str(root / "home"),
                "HF_ENDPOINT": hub.url,
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "HF_HUB_DISABLE_XET": "1" if request.param == "lfs" else "0",
            },
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    store = root / "store/.pretrained-hub"
    # Nothing is left half done, and of xorbs only notes.
    assert not list((store / "tmp").iterdir())
    assert not list((store / "parts").iterdir())
    noted = {path.suffix for path in (store / "xet").glob("*/*")}
    assert noted == ({".json"} if request.param == "xet" else set())
    return {one["step"]: one["note"] for one in found if "step" in one}


@pytest.mark.parametrize("step", STEPS)
def test_stock_client(results: dict[str, str], step: str) -> None:
    assert results[step] == ""
