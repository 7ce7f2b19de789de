"""Running a command inside the process, and checkpoints to run it on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pretrained.cli.root import root

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    """run("inspect", path, …) → the result; fails on any exception that is no exit code."""

    def invoke(*words: object, env: dict[str, str] | None = None) -> Result:
        result = CliRunner().invoke(root, [str(word) for word in words], env=env)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


@pytest.fixture
def run_json(run: Run) -> Callable[..., Any]:
    """The same with --json: (exit code, document)."""

    def invoke(*words: object) -> tuple[int, Any]:
        result = run(*words, "--json")
        return result.exit_code, json.loads(result.stdout)

    return invoke


@pytest.fixture
def copy(tmp_path: Path, reference: Path) -> Callable[[str], Path]:
    """copy("bert/torch-safetensors") → a writable copy of the reference folder."""

    def make(name: str) -> Path:
        target = tmp_path / "copies" / name.replace("/", "-")
        shutil.copytree(reference / name, target)
        for path in (target, *target.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)
        return target

    return make
