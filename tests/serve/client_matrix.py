"""Stock clients of several versions against `pretrained serve`: what passes, as a table.

    python tests/serve/client_matrix.py [--venvs FOLDER] [--write docs/serve.md]

Makes a virtual environment for each version of huggingface_hub, runs client_steps.py under it, kills clients and the
server on the way, and has transformers load and push if this interpreter has it. Ends with 1 if anything failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from serving import Served, Turnstile

HERE = Path(__file__).parent
STEPS = HERE / "client_steps.py"
VERSIONS = ("2.4.0", "1.33.0", "0.36.2")
BEGIN, END = "<!-- client matrix: begin -->", "<!-- client matrix: end -->"
SIZE = 96 << 20

TITLES = {
    "create": "create, exists, refusals",
    "upload_small": "upload small files and a card",
    "upload_large": "upload large files (path, bytes, handle)",
    "upload_folder": "upload a folder, .gitignore heeded",
    "download": "download a file, a snapshot, offline again",
    "listing": "list, info, commits",
    "tree": "tree, expanded, in pages",
    "branch": "branches",
    "tag": "tags",
    "commit": "commit of several operations, copy, parent conflict (412)",
    "pull_request": "pull request by another user, comments",
    "merge": "merge, rename, close",
    "private": "private: 401 and 404, then public",
    "gated": "gated: refused, granted",
    "move_and_delete": "move, delete",
    "errors": "error classes, bad token, bad card",
    "squash": "squash history",
    "command": "the `hf` command: upload, download, whoami",
    "killed_download": "download killed (SIGKILL), run again",
    "killed_upload": "upload killed (SIGKILL), run again",
    "killed_server": "server killed (SIGKILL) in mid-upload, run again",
}


@dataclass
class Client:
    """A column of the table."""

    version: str
    xet: bool
    results: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{self.version}{'' if self.xet else ' without Xet'}"


def python_of(version: str, venvs: Path) -> Path:
    """The interpreter of a virtual environment that has this version."""
    folder = venvs / version
    ready = folder / ".ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, f"huggingface_hub=={version}", "hf-xet==1.8.0"], check=True)
        ready.touch()
    return folder / "bin/python"


def environment(url: str, work: Path, *, xet: bool) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    return {
        **kept,
        "HF_ENDPOINT": url,
        "HF_HOME": str(work / "home"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "0" if xet else "1",
    }


def run_steps(client: Client, python: Path, work: Path) -> None:
    (work / "files").mkdir()
    with Served(work / "store") as hub:
        command = [str(python), str(STEPS), "all", str(work / "files")]
        done = subprocess.run(
            command, env=environment(hub.url, work, xet=client.xet), capture_output=True, text=True, timeout=600
        )
    for line in done.stdout.splitlines():
        found = json.loads(line)
        if "step" in found:
            client.results[found["step"]] = "" if found["ok"] else found["note"]
    if done.returncode:
        client.results["create"] = done.stderr[-300:]


def start(client: Client, python: Path, url: str, work: Path, *words: str) -> subprocess.Popen[bytes]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([str(python), str(STEPS), *words], env=environment(url, work, xet=client.xet), **quiet)


def finish(client: Client, python: Path, url: str, work: Path, *words: str) -> str:
    done = subprocess.run(
        [str(python), str(STEPS), *words],
        env=environment(url, work, xet=client.xet),
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode:
        raise AssertionError(done.stderr.strip().splitlines()[-1][:300])
    return done.stdout.strip()


def make_repo(url: str) -> None:
    from huggingface_hub import HfApi

    HfApi(endpoint=url, token="token-of-ann").create_repo("ann/killed", exist_ok=True)


def killed_upload(client: Client, python: Path, work: Path, file: Path) -> None:
    with Served(work / "store") as hub:
        make_repo(hub.url)
        way = Turnstile(hub.port, random.randint(SIZE // 8, SIZE // 2), up=True)
        first = start(client, python, way.url, work, "upload", "ann/killed", str(file))
        assert way.reached.wait(60), "the upload was too fast to be killed"
        first.send_signal(signal.SIGKILL)
        first.wait()
        way.close()
        finish(client, python, hub.url, work, "upload", "ann/killed", str(file))
        same(finish(client, python, hub.url, work, "download", "ann/killed", file.name), file)


def killed_server(client: Client, python: Path, work: Path, file: Path) -> None:
    with Served(work / "store") as hub:
        make_repo(hub.url)
        port = hub.port
        way = Turnstile(port, random.randint(SIZE // 8, SIZE // 2), up=True)
        first = start(client, python, way.url, work, "upload", "ann/killed", str(file))
        assert way.reached.wait(60), "the upload was too fast"
        hub.kill()
        way.close()
        time.sleep(0.2)
    with Served(work / "store", port=port) as hub:
        first.kill()
        first.wait()
        finish(client, python, hub.url, work, "upload", "ann/killed", str(file))
        same(finish(client, python, hub.url, work, "download", "ann/killed", file.name), file)


def killed_download(client: Client, python: Path, work: Path, file: Path) -> None:
    with Served(work / "store") as hub:
        make_repo(hub.url)
        finish(client, python, hub.url, work, "upload", "ann/killed", str(file))
        way = Turnstile(hub.port, random.randint(SIZE // 8, SIZE // 2), up=False)
        first = start(client, python, way.url, work, "download", "ann/killed", file.name)
        assert way.reached.wait(60), "the download was too fast to be killed"
        first.send_signal(signal.SIGKILL)
        first.wait()
        way.close()
        same(finish(client, python, hub.url, work, "download", "ann/killed", file.name), file)


def same(path: str, file: Path) -> None:
    assert Path(path).read_bytes() == file.read_bytes(), "what came back is not what was sent"


def run_transformers(work: Path) -> dict[str, str]:
    """Loading and pushing by transformers, in a process of its own."""
    code = """
import sys, torch
from transformers import AutoConfig, AutoModel, BertConfig, BertModel, __version__
torch.manual_seed(0)
sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 37}
model = BertModel(BertConfig(**sizes, vocab_size=99))
model.push_to_hub("ann/pushed", token="token-of-ann", max_shard_size="40KB")
loaded = AutoModel.from_pretrained("ann/pushed")
assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values()))
model.push_to_hub("ann/pushed", token="token-of-ann", create_pr=True)
AutoModel.from_pretrained("ann/pushed", revision="refs/pr/1")
AutoConfig.from_pretrained("ann/pushed")
print(__version__)
"""
    with Served(work / "store") as hub:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment(hub.url, work, xet=True),
            capture_output=True,
            text=True,
            timeout=300,
        )
    note = "" if done.returncode == 0 else done.stderr.strip().splitlines()[-1][:300]
    return {"transformers": note, "version": done.stdout.strip()}


def table(clients: list[Client], transformers: dict[str, str] | None) -> str:
    rows = [["", *(client.title for client in clients)]]
    rows += [[title, *(_cell(client.results.get(step)) for client in clients)] for step, title in TITLES.items()]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---" * (len(clients) + 1) + "|")
    text = "\n".join(lines)
    if transformers is not None:
        text += f"\n\ntransformers {transformers['version'] or '?'}: `from_pretrained` (also of `refs/pr/1`), "
        text += f"`push_to_hub` in shards and with `create_pr`: {_cell(transformers['transformers'])}."
    return text


def _cell(note: str | None) -> str:
    return "not run" if note is None else "pass" if not note else "**fails**"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venvs", type=Path, default=Path(".venv-hub"))
    parser.add_argument("--write", type=Path, help="document whose table is replaced")
    options = parser.parse_args()
    clients = []
    for version in VERSIONS:
        python = python_of(version, options.venvs.resolve())
        for xet in (True, False):
            client = Client(version, xet)
            clients.append(client)
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "weights.safetensors"
                file.write_bytes(os.urandom(SIZE))
                (Path(folder) / "steps").mkdir()
                run_steps(client, python, Path(folder) / "steps")
                for test in (killed_download, killed_upload, killed_server):
                    work = Path(folder) / test.__name__
                    work.mkdir()
                    try:
                        test(client, python, work, file)
                        client.results[test.__name__] = ""
                    except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
                        client.results[test.__name__] = str(error) or type(error).__name__
            failed = {step: note for step, note in client.results.items() if note}
            print(f"huggingface_hub {client.title}: {len(client.results) - len(failed)} of {len(TITLES)}", flush=True)
            for step, note in failed.items():
                print(f"  {step}: {note}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        transformers = run_transformers(Path(folder))
    if transformers["transformers"]:
        print(f"transformers: {transformers['transformers']}")
    text = table(clients, transformers)
    print(f"\n{text}\n\nhf-xet 1.8.0, Python {platform.python_version()}")
    if options.write is not None:
        document = options.write.read_text(encoding="utf-8")
        head, rest = document.split(BEGIN)
        options.write.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    is_whole = all(client.results.get(step) == "" for client in clients for step in TITLES)
    return 0 if is_whole and not transformers["transformers"] else 1


if __name__ == "__main__":
    sys.exit(main())
