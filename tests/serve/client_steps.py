"""What one client does to a Hub, step by step; runs under whatever huggingface_hub its interpreter has.

    python client_steps.py all WORK           every step; one JSON line each
    python client_steps.py upload REPO FILE   one upload, for whoever kills it
    python client_steps.py download REPO NAME one download, for the same

HF_ENDPOINT says where the Hub is. Users are ann and bob, and ann is of the organisation acme.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.utils import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

ANN, BOB = "token-of-ann", "token-of-bob"
ann, bob, nobody = HfApi(token=ANN), HfApi(token=BOB), HfApi(token=False)
REPO = "ann/model"
BIG = bytes(range(256)) * 20_000 + os.urandom(2_000_000)

work = Path(sys.argv[2]) if len(sys.argv) > 2 else Path()


def status_of(call: Callable[[], Any]) -> int:
    """The HTTP status with which a call is refused."""
    try:
        call()
    except HfHubHTTPError as error:
        return int(error.response.status_code)
    raise AssertionError("it was not refused")


def raises(kind: type[Exception], call: Callable[[], Any]) -> None:
    try:
        call()
    except kind:
        return
    except Exception as error:  # gated and missing files may come wrapped
        if isinstance(error.__cause__, kind):
            return
        raise
    raise AssertionError(f"no {kind.__name__}")


def create() -> None:
    assert ann.whoami()["name"] == "ann"
    assert str(ann.create_repo(REPO)).endswith("/ann/model")
    assert ann.create_repo(REPO, exist_ok=True).repo_id == REPO
    assert status_of(lambda: ann.create_repo(REPO)) == 409
    assert status_of(lambda: bob.create_repo("ann/other")) == 403
    ann.create_repo("acme/data", repo_type="dataset")
    assert ann.repo_exists(REPO)
    assert not ann.repo_exists("ann/nothing")
    assert [info.id for info in nobody.list_models(author="ann")] == [REPO]


def upload_small() -> None:
    info = ann.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id=REPO)
    assert len(info.oid) == 40
    ann.upload_file(path_or_fileobj=b"---\nlicense: mit\n---\n# Card\n", path_in_repo="README.md", repo_id=REPO)
    assert ann.model_info(REPO).card_data.license == "mit"


def upload_large() -> None:
    path = work / "model.safetensors"
    path.write_bytes(BIG)
    ann.upload_file(path_or_fileobj=str(path), path_in_repo="sub/model.safetensors", repo_id=REPO)
    ann.upload_file(path_or_fileobj=BIG[:100_000], path_in_repo="bytes.bin", repo_id=REPO)
    with path.open("rb") as file:
        ann.upload_file(path_or_fileobj=file, path_in_repo="handle.bin", repo_id=REPO)
    [found] = ann.get_paths_info(REPO, ["sub/model.safetensors"])
    assert found.lfs.sha256 == hashlib.sha256(BIG).hexdigest()
    assert found.size == len(BIG)


def upload_folder() -> None:
    folder = work / "folder"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Folder\n")
    (folder / "deep" / "er" / "weights.bin").write_bytes(BIG[::-1])
    (folder / ".gitignore").write_text("*.tmp\n")
    (folder / "left.tmp").write_text("x")
    ann.upload_folder(repo_id="acme/data", folder_path=folder, repo_type="dataset")
    names = ann.list_repo_files("acme/data", repo_type="dataset")
    assert "deep/er/weights.bin" in names
    assert "left.tmp" not in names


def download() -> None:
    path = hf_hub_download(REPO, "sub/model.safetensors", token=False)
    assert Path(path).read_bytes() == BIG
    root = snapshot_download(REPO, token=False)
    assert (Path(root) / "bytes.bin").read_bytes() == BIG[:100_000]
    assert Path(hf_hub_download(REPO, "config.json", local_files_only=True)).read_bytes() == b"{}"


def listing() -> None:
    assert {".gitattributes", "README.md", "sub/model.safetensors"} <= set(nobody.list_repo_files(REPO))
    assert nobody.file_exists(REPO, "config.json")
    assert not nobody.file_exists(REPO, "nothing.json")
    info = nobody.model_info(REPO, files_metadata=True)
    assert all(sibling.size is not None for sibling in info.siblings)
    assert [commit.title for commit in nobody.list_repo_commits(REPO)][-1] == "initial commit"


def tree() -> None:
    assert "sub" in [item.path for item in nobody.list_repo_tree(REPO)]
    assert [item.path for item in nobody.list_repo_tree(REPO, "sub")] == ["sub/model.safetensors"]
    expanded = list(nobody.list_repo_tree(REPO, recursive=True, expand=True))
    assert all(item.last_commit is not None for item in expanded)
    many = [CommitOperationAdd(f"many/{n:04}.txt", str(n).encode()) for n in range(1100)]
    ann.create_commit("acme/data", many, commit_message="many", repo_type="dataset")
    found = list(nobody.list_repo_tree("acme/data", "many", repo_type="dataset"))
    assert [item.path for item in found] == [f"many/{n:04}.txt" for n in range(1100)]


def branch() -> None:
    ann.create_branch(REPO, branch="dev")
    ann.create_branch(REPO, branch="dev", exist_ok=True)
    assert status_of(lambda: ann.create_branch(REPO, branch="dev")) == 409
    ann.upload_file(path_or_fileobj=b"dev", path_in_repo="dev.txt", repo_id=REPO, revision="dev")
    assert "dev.txt" in ann.list_repo_files(REPO, revision="dev")
    assert "dev.txt" not in ann.list_repo_files(REPO)
    ann.delete_branch(REPO, branch="dev")
    assert [ref.name for ref in ann.list_repo_refs(REPO).branches] == ["main"]


def tag() -> None:
    ann.create_tag(REPO, tag="v1.0", tag_message="the first")
    assert status_of(lambda: ann.create_tag(REPO, tag="v1.0")) == 409
    ann.upload_file(path_or_fileobj=b"later", path_in_repo="later.txt", repo_id=REPO)
    assert "later.txt" not in ann.list_repo_files(REPO, revision="v1.0")
    ann.delete_tag(REPO, tag="v1.0")
    raises(RevisionNotFoundError, lambda: ann.model_info(REPO, revision="v1.0"))


def commit() -> None:
    head = ann.model_info(REPO).sha
    operations = [
        CommitOperationAdd("a.txt", b"a"),
        CommitOperationDelete("later.txt"),
        CommitOperationCopy("sub/model.safetensors", "copy.safetensors"),
    ]
    done = ann.create_commit(REPO, operations, commit_message="three things", parent_commit=head)
    assert done.oid == ann.model_info(REPO).sha
    names = ann.list_repo_files(REPO)
    assert "a.txt" in names
    assert "copy.safetensors" in names
    assert "later.txt" not in names
    operations = [CommitOperationAdd("b.txt", b"b")]
    late = status_of(lambda: ann.create_commit(REPO, operations, commit_message="late", parent_commit=head))
    assert late == 412
    assert status_of(lambda: bob.create_commit(REPO, operations, commit_message="not mine")) == 403
    ann.delete_folder("sub", repo_id=REPO)
    assert "sub/model.safetensors" not in ann.list_repo_files(REPO)


def pull_request() -> None:
    operations = [CommitOperationAdd("from-bob.txt", b"bob"), CommitOperationAdd("bob.bin", BIG[:70_000])]
    done = bob.create_commit(REPO, operations, commit_message="From bob", create_pr=True)
    assert done.pr_num == 1
    assert "from-bob.txt" in nobody.list_repo_files(REPO, revision="refs/pr/1")
    bob.upload_file(path_or_fileobj=b"more", path_in_repo="more.txt", repo_id=REPO, revision="refs/pr/1")
    path = hf_hub_download(REPO, "more.txt", revision="refs/pr/1", token=False)
    assert Path(path).read_bytes() == b"more"
    assert [one.num for one in ann.get_repo_discussions(REPO)] == [1]
    ann.comment_discussion(REPO, 1, "thank you")
    details = ann.get_discussion_details(REPO, 1)
    assert details.is_pull_request
    assert "thank you" in [getattr(event, "content", None) for event in details.events]


def merge() -> None:
    assert status_of(lambda: bob.merge_pull_request(REPO, 1)) == 403
    ann.merge_pull_request(REPO, 1)
    assert {"from-bob.txt", "more.txt", "bob.bin"} <= set(nobody.list_repo_files(REPO))
    assert ann.get_discussion_details(REPO, 1).status == "merged"
    two = ann.create_pull_request(REPO, title="An empty one")
    ann.rename_discussion(REPO, two.num, "Another title")
    ann.change_discussion_status(REPO, two.num, "closed")
    assert ann.get_discussion_details(REPO, two.num).status == "closed"


def private() -> None:
    ann.create_repo("acme/secret", private=True)
    ann.upload_file(path_or_fileobj=b"s", path_in_repo="s.txt", repo_id="acme/secret")
    assert ann.model_info("acme/secret").private
    for other in (bob, nobody):
        raises(RepositoryNotFoundError, lambda api=other: api.model_info("acme/secret"))
        raises(RepositoryNotFoundError, lambda api=other: api.list_repo_files("acme/secret"))
    raises(RepositoryNotFoundError, lambda: hf_hub_download("acme/secret", "s.txt", token=BOB))
    assert "acme/secret" not in [info.id for info in nobody.list_models()]
    ann.update_repo_settings("acme/secret", private=False)
    assert nobody.list_repo_files("acme/secret") == [".gitattributes", "s.txt"]


def gated() -> None:
    ann.update_repo_settings("acme/secret", gated="manual")
    assert nobody.model_info("acme/secret").gated == "manual"
    for token in (False, BOB):
        raises(GatedRepoError, lambda token=token: hf_hub_download("acme/secret", "s.txt", token=token))
    raises(GatedRepoError, lambda: bob.auth_check("acme/secret"))
    ann.grant_access("acme/secret", "bob")
    assert [one.username for one in ann.list_accepted_access_requests("acme/secret")] == ["bob"]
    assert Path(hf_hub_download("acme/secret", "s.txt", token=BOB)).read_bytes() == b"s"


def move_and_delete() -> None:
    ann.move_repo("acme/secret", "ann/moved")
    raises(RepositoryNotFoundError, lambda: ann.model_info("acme/secret"))
    assert ann.list_repo_files("ann/moved") == [".gitattributes", "s.txt"]
    raises(HfHubHTTPError, lambda: bob.delete_repo("ann/moved"))
    ann.delete_repo("ann/moved")
    ann.delete_repo("ann/moved", missing_ok=True)
    assert not ann.repo_exists("ann/moved")


def errors() -> None:
    raises(RepositoryNotFoundError, lambda: nobody.model_info("no/thing"))
    raises(RepositoryNotFoundError, lambda: ann.model_info("no/thing"))
    raises(RevisionNotFoundError, lambda: nobody.model_info(REPO, revision="nowhere"))
    raises(EntryNotFoundError, lambda: hf_hub_download(REPO, "nothing.txt", token=False))
    raises(RevisionNotFoundError, lambda: hf_hub_download(REPO, "a.txt", revision="nowhere", token=False))
    assert status_of(lambda: HfApi(token="not-a-token").model_info(REPO)) == 401
    raises(Exception, lambda: ann.upload_file(path_or_fileobj=b"x", path_in_repo=".git/config", repo_id=REPO))
    bad = b"---\nlicense: [\n---\n"
    raises(ValueError, lambda: ann.upload_file(path_or_fileobj=bad, path_in_repo="README.md", repo_id=REPO))


def squash() -> None:
    before = set(ann.list_repo_files(REPO))
    ann.super_squash_history(REPO)
    assert set(ann.list_repo_files(REPO)) == before
    assert len(ann.list_repo_commits(REPO)) == 1


def command() -> None:
    """The `hf` command of the same installation."""
    program = Path(sys.executable).parent / "hf"
    environment = {**os.environ, "HF_TOKEN": ANN}

    def hf(*words: str) -> str:
        done = subprocess.run([program, *words], env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-500:]
        return done.stdout

    (work / "by-command").mkdir()
    (work / "by-command" / "weights.bin").write_bytes(BIG[5:])
    (work / "by-command" / "notes.txt").write_text("notes")
    assert "ann" in hf("auth", "whoami")
    hf("upload", "ann/by-command", str(work / "by-command"), ".")
    hf("download", "ann/by-command", "--local-dir", str(work / "back"))
    assert (work / "back" / "weights.bin").read_bytes() == BIG[5:]
    assert (work / "back" / "notes.txt").read_text() == "notes"


STEPS = (
    create,
    upload_small,
    upload_large,
    upload_folder,
    download,
    listing,
    tree,
    branch,
    tag,
    commit,
    pull_request,
    merge,
    private,
    gated,
    move_and_delete,
    errors,
    squash,
    command,
)


def run_all() -> None:
    print(json.dumps({"version": huggingface_hub.__version__}), flush=True)
    for step in STEPS:
        note = ""
        try:
            step()
        except Exception as error:
            lines = _lines(error)
            note = f"{type(error).__name__}: {' '.join(str(error).split())[:300]} (line {lines[-1] if lines else '?'})"
        print(json.dumps({"step": step.__name__, "ok": not note, "note": note}), flush=True)


def _lines(error: Exception) -> list[int]:
    found, place = [], error.__traceback__
    while place is not None:
        if place.tb_frame.f_code.co_filename == __file__:
            found.append(place.tb_lineno)
        place = place.tb_next
    return found


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["all", _]:
            run_all()
        case ["upload", repo, file]:
            ann.upload_file(path_or_fileobj=file, path_in_repo=Path(file).name, repo_id=repo)
        case ["download", repo, name]:
            print(hf_hub_download(repo, name, token=ANN))
