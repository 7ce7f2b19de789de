"""The program itself: how it starts, what it does without its packages, how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pretrained

COMMANDS = ("inspect", "plan", "verify", "convert", "diff", "generate", "download", "push", "serve")
HERE = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}


def python(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=HERE, check=False, **options)  # type: ignore[call-overload]


def program(*words: object) -> subprocess.CompletedProcess[str]:
    return python("-m", "pretrained", *words)


def test_version_and_help() -> None:
    assert program("--version").stdout == f"pretrained, version {pretrained.__version__}\n"
    done = program("--help")
    assert done.returncode == 0
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)
    assert "Exit codes" in done.stdout
    assert all(program(name, "--help").returncode == 0 for name in COMMANDS)


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["inspect", "--help"],
        ["inspect", "FOLDER"],
        ["plan", "--help"],
        ["generate", "--help"],
        ["serve", "--help"],
    ],
)
def test_no_framework_is_imported_before_it_is_needed(words: list[str], reference: Path) -> None:
    words = [word.replace("FOLDER", str(reference / "bert/torch-safetensors")) for word in words]
    code = (
        "import sys\nfrom pretrained.cli import main\n"
        f"try: main({words!r})\nexcept SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'jax', 'tensorflow', 'numpy', 'huggingface_hub', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("missing", [["click"], ["rich"], ["click", "rich"]])
def test_without_its_packages_it_says_what_to_install(missing: list[str]) -> None:
    code = (
        f"import sys\nfor name in {missing!r}: sys.modules[name] = None\n"
        "from pretrained.cli import main\nsys.exit(main(['--help']))"
    )
    done = python("-c", code)
    assert done.returncode == 2
    assert "pip install 'pretrained[cli]'" in done.stderr
    assert all(name in done.stderr for name in missing)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_plan_without_torch_says_what_to_install(reference: Path) -> None:
    folder = str(reference / "bert/torch-safetensors")
    code = (
        "import sys\nsys.modules['torch'] = None\n"
        f"from pretrained.cli import main\nsys.exit(main(['plan', {folder!r}]))"
    )
    done = python("-c", code)
    assert done.returncode == 2
    assert "pip install 'pretrained[torch]'" in done.stderr


def test_exit_codes_of_a_process(reference: Path, tmp_path: Path) -> None:
    bert = reference / "bert"
    assert program("diff", bert / "torch-safetensors", bert / "torch-safetensors-sharded").returncode == 0
    assert program("diff", bert / "torch-safetensors", bert / "torch-safetensors-bf16").returncode == 1
    lost = program("inspect", tmp_path / "nothing")
    assert (lost.returncode, lost.stdout) == (2, "")
    assert lost.stderr.startswith("error: no file or folder ")
    assert program("inspect").returncode == 2
    assert program("unknown").returncode == 2


def test_json_is_one_document_on_stdout(reference: Path) -> None:
    done = program("plan", reference / "llama/torch-safetensors", "--json")
    assert done.stdout.count("\n") == 1
    assert json.loads(done.stdout)["model"] == "LlamaForCausalLM"


def test_a_closed_pipe_is_no_finding_and_no_traceback(reference: Path) -> None:
    command = [sys.executable, "-m", "pretrained", "inspect", str(reference / "bert/torch-safetensors")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=HERE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_a_hub_name_that_is_not_cached(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pretrained", "inspect", "some-org/some-model", "--local-files-only"],
        capture_output=True,
        text=True,
        env={**HERE, "HF_HUB_CACHE": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 2
    assert "some-org/some-model@main is not in the cache" in done.stderr
