"""Pushes to a hub of our own: what becomes of every parameter, and what a repository holds after each."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, ModelCard

from pretrained import BertConfig, BertModel, GenerationConfig, LlamaConfig, LlamaForCausalLM
from pretrained.errors import HubError, InvalidOptionError, OptionError, UntrustedPathError
from pretrained.hub import upload as module
from pretrained.hub.push import PushToHubMixin
from pretrained.push_options import PushOptions, push_options
from pretrained.serve.people import People
from pretrained.serve.running import HubServer
from pretrained.source_options import Secret

# huggingface_hub's own upload by Git LFS calls its HTTP library in a way that release 2.16 of that warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=")

ADA, BOB = "hf_" + "Ada1" * 8, "hf_" + "Bob2" * 8


@pytest.fixture
def server(tmp_path: Path, quiet: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    people = People({"ada": ADA, "bob": BOB}, {"lab": ["ada"]})
    monkeypatch.setattr(sys.modules["huggingface_hub.utils.tqdm"], "HF_HUB_DISABLE_PROGRESS_BARS", True)
    with HubServer(tmp_path / "served", people=people, writable=True) as made:
        yield made


def api(server: HubServer, token: str = ADA) -> HfApi:
    return HfApi(endpoint=server.url, token=token)


def to(server: HubServer, **options: Any) -> dict[str, Any]:
    return {"endpoint": server.url, "token": ADA, **options}


def tiny(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, **sizes)).eval()


def same(model: Any, other: Any) -> bool:
    mine, theirs = model.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def names(server: HubServer, repo_id: str, **options: Any) -> set[str]:
    return set(api(server).list_repo_files(repo_id, **options)) - {".gitattributes"}


def loaded(server: HubServer, repo_id: str, tmp_path: Path, **options: Any) -> Any:
    where = {"endpoint": server.url, "token": ADA, "cache_dir": tmp_path / "cache"}
    return LlamaForCausalLM.from_pretrained(repo_id, **{**where, **options})


def test_a_model_goes_there_and_back(server: HubServer, tmp_path: Path) -> None:
    model = tiny()
    info = model.push_to_hub("ada/new", **to(server))
    assert info.oid == api(server).model_info("ada/new").sha
    assert names(server, "ada/new") == {"config.json", "generation_config.json", "model.safetensors", "README.md"} - (
        set() if model.generation_config is not None else {"generation_config.json"}
    )
    assert same(loaded(server, "ada/new", tmp_path), model)
    assert same(loaded(server, "ada/new", tmp_path / "other", stream=True), model)
    assert api(server).list_repo_commits("ada/new")[0].title == "Upload LlamaForCausalLM"


def test_one_commit_with_every_shard(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is uploaded as it is written, and then gone: never are all of them on the disk."""
    model = tiny()
    model.push_to_hub("ada/new", **to(server))
    before = len(api(server).list_repo_commits("ada/new"))
    present: list[int] = []
    wrote = module.Upload.wrote

    def noted(upload: module.Upload, name: str) -> None:
        wrote(upload, name)
        present.append(len(list(upload._folder.rglob("*.safetensors"))))  # type: ignore[union-attr]

    monkeypatch.setattr(module.Upload, "wrote", noted)
    monkeypatch.setattr("pretrained.checkpoint.disk.MAX_WORKERS", 1)
    model.push_to_hub("ada/new", max_shard_size="3kB", **to(server))
    assert len(api(server).list_repo_commits("ada/new")) == before + 1
    found = names(server, "ada/new")
    shards = {name for name in found if name.startswith("model-")}
    assert len(shards) > 5 and "model.safetensors.index.json" in found
    assert "model.safetensors" not in found  # the single file of the first push would be a second checkpoint
    assert max(present) <= 1
    assert same(loaded(server, "ada/new", tmp_path), model)


def test_what_did_not_change_is_not_uploaded_again(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    first = model.push_to_hub("ada/new", **to(server))
    assert model.push_to_hub("ada/new", **to(server)).oid == first.oid


def test_private_branches_and_pull_requests(server: HubServer, tmp_path: Path) -> None:
    model, other = tiny(), tiny(1)
    model.push_to_hub("lab/secret", private=True, commit_message="First", commit_description="of all", **to(server))
    assert api(server).model_info("lab/secret").private
    with pytest.raises(
        HubError, match=r"no such repository, or no access to it \(the token that was passed was sent\)"
    ):
        loaded(server, "lab/secret", tmp_path, token=BOB)
    other.push_to_hub("lab/secret", revision="dev", **to(server))
    assert same(loaded(server, "lab/secret", tmp_path, revision="dev"), other)
    assert same(loaded(server, "lab/secret", tmp_path), model)
    info = other.push_to_hub("lab/secret", create_pr=True, **to(server))
    assert info.pr_revision == "refs/pr/1" and info.pr_url is not None
    assert same(loaded(server, "lab/secret", tmp_path, revision="refs/pr/1"), other)
    assert same(loaded(server, "hf://lab/secret@refs/pr/1", tmp_path), other)
    assert same(loaded(server, "lab/secret", tmp_path), model)
    titles = [commit.title for commit in api(server).list_repo_commits("lab/secret")]
    assert titles[0] == "First"


def test_a_proposal_to_somebody_else(server: HubServer, tmp_path: Path) -> None:
    tiny().push_to_hub("ada/open", **to(server))
    with pytest.raises(HubError, match=r"cannot push to ada/open .* \(HTTP 403\)"):
        tiny(1).push_to_hub("ada/open", **to(server, token=BOB))
    info = tiny(1).push_to_hub("ada/open", create_pr=True, **to(server, token=BOB))
    assert same(loaded(server, "ada/open", tmp_path, revision=info.pr_revision), tiny(1))


def test_a_name_of_ones_own(server: HubServer) -> None:
    tiny().push_to_hub("mine", **to(server))
    assert "model.safetensors" in names(server, "ada/mine")


def test_the_card(server: HubServer, tmp_path: Path) -> None:
    model = tiny()
    model.name_or_path = "org/parent"
    model.add_model_tags("small")
    model.push_to_hub("ada/new", tags=["test"], license="mit", **to(server))
    path = api(server).hf_hub_download("ada/new", "README.md", cache_dir=tmp_path / "cards")
    card = ModelCard.load(path)
    assert (card.data.library_name, card.data.license, card.data.base_model) == ("pretrained", "mit", "org/parent")
    assert card.data.tags == ["test", "small"]
    assert 'LlamaForCausalLM.from_pretrained("ada/new")' in card.text
    assert f"{sum(p.numel() for p in model.parameters()):,} parameters" in card.text
    # A card that is there is somebody's work: it is kept, and gets the tags that it lacks.
    mine = "---\nlicense: apache-2.0\ntags:\n- test\n---\n\nMy words.\n"
    api(server).upload_file(path_or_fileobj=mine.encode(), path_in_repo="README.md", repo_id="ada/new")
    model.push_to_hub("ada/new", **to(server))
    card = ModelCard.load(api(server).hf_hub_download("ada/new", "README.md", cache_dir=tmp_path / "cards"))
    assert card.data.tags == ["test", "small"] and card.data.license == "apache-2.0" and "My words." in card.text
    assert card.data.library_name is None


def test_save_pretrained_pushes_too(server: HubServer, tmp_path: Path) -> None:
    model = tiny()
    model.save_pretrained(tmp_path / "named", push_to_hub=True, **to(server))
    assert same(loaded(server, "ada/named", tmp_path), model)
    (tmp_path / "named" / "notes.txt").write_text("not of this save")
    saved = model.save_pretrained(
        tmp_path / "named", push_to_hub=True, repo_id="lab/other", blocking=False, max_shard_size="3kB", **to(server)
    )
    saved.result()
    assert "notes.txt" not in names(server, "lab/other")
    assert same(loaded(server, "lab/other", tmp_path), model)
    model.save_pretrained(tmp_path / "named", push_to_hub=True, repo_id="lab/other", **to(server))
    assert {name for name in names(server, "lab/other") if "safetensors" in name} == {"model.safetensors"}
    assert model.save_pretrained(tmp_path / "x", is_main_process=False, push_to_hub=True, **to(server)) is None
    assert not api(server).repo_exists("ada/x")


def test_other_forms_and_folders(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    model.push_to_hub("ada/bin", safe_serialization=False, **to(server))
    assert "pytorch_model.bin" in names(server, "ada/bin")
    assert same(loaded(server, "ada/bin", tmp_path), model)
    model.push_to_hub("ada/bin", variant="fp16", **to(server))
    assert {"model.fp16.safetensors", "pytorch_model.bin"} <= names(server, "ada/bin")
    monkeypatch.chdir(tmp_path)
    model.push_to_hub("ada/folder", use_temp_dir=False, **to(server))
    assert (tmp_path / "folder" / "model.safetensors").exists()
    assert same(loaded(server, "ada/folder", tmp_path / "elsewhere"), model)


def test_configs(server: HubServer, tmp_path: Path) -> None:
    config = BertConfig(hidden_size=24)
    config.push_to_hub("ada/config", commit_message="Config alone", **to(server))
    where = {"endpoint": server.url, "token": False, "cache_dir": tmp_path / "cache"}
    assert BertConfig.from_pretrained("ada/config", **where).hidden_size == 24
    generation = GenerationConfig(max_new_tokens=7)
    generation.push_to_hub("ada/config", **to(server))
    assert GenerationConfig.from_pretrained("ada/config", **where).max_new_tokens == 7
    assert names(server, "ada/config") == {"config.json", "generation_config.json", "README.md"}
    config.save_pretrained(tmp_path / "saved", push_to_hub=True, **to(server))
    generation.save_pretrained(tmp_path / "saved2", push_to_hub=True, repo_id="ada/saved", **to(server))
    assert names(server, "ada/saved") == {"config.json", "generation_config.json", "README.md"}
    with pytest.raises(OptionError, match="no option 'nothing'"):
        config.save_pretrained(tmp_path / "saved", nothing=1)


class Tokenizer(PushToHubMixin):
    """Somebody else's class with a save_pretrained of its own, and files in folders."""

    def save_pretrained(self, directory: Path, **kwargs: Any) -> None:
        (directory / "deep" / "er").mkdir(parents=True)
        (directory / "deep" / "er" / "vocab.txt").write_text("a b")
        (directory / ".cache").mkdir()
        (directory / ".cache" / "x").write_text("hidden")


def test_anything_with_save_pretrained(server: HubServer) -> None:
    Tokenizer().push_to_hub("ada/words", **to(server))
    assert names(server, "ada/words") == {"deep/er/vocab.txt", "README.md"}


class Doubled(LlamaForCausalLM):
    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        super().save_pretrained(save_directory, *args, **kwargs)
        Path(save_directory, "more.txt").write_text("more")


def test_a_class_that_saves_more_pushes_more(server: HubServer) -> None:
    Doubled(tiny().config).push_to_hub("ada/more", **to(server))
    assert {"more.txt", "model.safetensors"} <= names(server, "ada/more")


@pytest.fixture
def without_xet(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """A hub that knows nothing of Xet, as most servers that are not Hugging Face's."""
    from pretrained.serve import routes

    table = next(
        value for value in vars(routes).values() if isinstance(value, dict) and ("GET", "xet-write-token") in value
    )
    monkeypatch.delitem(table, ("GET", "xet-write-token"))
    return server


def test_a_hub_without_xet(without_xet: HubServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny()
    model.push_to_hub("ada/plain", max_shard_size="5kB", **to(without_xet))
    assert same(loaded(without_xet, "ada/plain", tmp_path), model)


def test_a_push_that_fails_changes_nothing(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tiny().push_to_hub("ada/new", **to(server))

    def refuse(upload: module.Upload) -> None:
        raise RuntimeError("stop")

    folders: list[Path] = []
    enter = module.Upload.__enter__

    def noted(upload: module.Upload) -> module.Upload:
        folders.append(enter(upload)._folder)  # type: ignore[arg-type]
        return upload

    monkeypatch.setattr(module.Upload, "__enter__", noted)
    monkeypatch.setattr(module.Upload, "commit", refuse)
    with pytest.raises(RuntimeError):
        tiny(1).push_to_hub("ada/new", **to(server))
    assert api(server).model_info("ada/new").sha == first.oid
    assert not any(folder.exists() for folder in folders)


def test_nobody_there(quiet: None) -> None:
    with pytest.raises(HubError, match=r"cannot push to ada/new at http://127.0.0.1:9: ConnectError: no answer$"):
        tiny().push_to_hub("ada/new", endpoint="http://127.0.0.1:9", token=ADA)


# Options


def test_every_parameter_of_the_contract() -> None:
    import inspect

    contract = (
        "repo_id use_temp_dir commit_message private token max_shard_size create_pr safe_serialization revision "
        "commit_description tags"
    )
    parameters = list(inspect.signature(LlamaForCausalLM.push_to_hub).parameters)
    assert parameters[1:-1] == contract.split()


@pytest.mark.parametrize("name", ["organization", "repo_url", "repo_path_or_name", "repo_name", "temp_dir"])
def test_names_of_old(name: str) -> None:
    with pytest.raises(OptionError, match=f"push_to_hub has no {name}= any more: "):
        tiny().push_to_hub("ada/new", **{name: "x"})
    assert push_options({"repo_id": "x", name: None}) == PushOptions("x")


def test_keywords_that_make_no_sense() -> None:
    with pytest.raises(OptionError, match=r"no option 'privat'; did you mean 'private'\?"):
        tiny().push_to_hub("ada/new", privat=True)
    for name, value in (("private", 1), ("create_pr", "x"), ("tags", [1]), ("revision", 2), ("token", 1.5)):
        with pytest.raises(InvalidOptionError, match=name if name != "tags" else "tags are words"):
            push_options({"repo_id": "x", name: value})
    with pytest.warns(DeprecationWarning, match="use_auth_token= is deprecated: use token="):
        assert push_options({"repo_id": "x", "use_auth_token": "t"}).token == Secret("t")
    assert "hf_" not in repr(push_options({"repo_id": "x", "token": ADA}))


@pytest.mark.parametrize("repo_id", ["../x", "a/../b", "a/b/c", "a b", "", "a/..", "ada/new\r\nX: y"])
def test_names_of_repositories(repo_id: str) -> None:
    with pytest.raises((InvalidOptionError, UntrustedPathError)):
        tiny().push_to_hub(repo_id, token=ADA, endpoint="http://127.0.0.1:9")


def test_revisions_stay_in_the_repository() -> None:
    with pytest.raises(UntrustedPathError, match="revision"):
        tiny().push_to_hub("ada/new", revision="../../x", token=ADA, endpoint="http://127.0.0.1:9")


# JAX


def test_a_jax_model(server: HubServer, tmp_path: Path) -> None:
    from pretrained import FlaxBertModel

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = FlaxBertModel(BertConfig(vocab_size=50, **sizes))
    model.push_to_hub("ada/jax", max_shard_size="3kB", **to(server))
    shards = {name for name in names(server, "ada/jax") if name.startswith("model-")}
    assert len(shards) > 3 and "README.md" in names(server, "ada/jax")
    where = {"endpoint": server.url, "token": ADA, "cache_dir": tmp_path / "cache"}
    torch_model = BertModel.from_pretrained("ada/jax", **where)
    for options in (where, {**where, "stream": True, "cache_dir": tmp_path / "none"}):
        FlaxBertModel.from_pretrained("ada/jax", **options).save_pretrained(tmp_path / "again")
        assert same(BertModel.from_pretrained(tmp_path / "again"), torch_model)
    model.save_pretrained(tmp_path / "jax", push_to_hub=True, repo_id="ada/jax", safe_serialization=False, **to(server))
    assert "flax_model.msgpack" in names(server, "ada/jax")
    assert not shards & names(server, "ada/jax")  # they come first in a load


# TensorFlow


def test_a_tensorflow_model(server: HubServer, tmp_path: Path) -> None:
    import numpy as np

    from pretrained import PushToHubCallback, TFBertForSequenceClassification

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = TFBertForSequenceClassification(BertConfig(vocab_size=50, **sizes))
    model.push_to_hub("ada/keras", max_shard_size="3kB", **to(server))
    shards = {name for name in names(server, "ada/keras") if name.startswith("model-")}
    assert len(shards) > 3 and "README.md" in names(server, "ada/keras")
    where = {"endpoint": server.url, "token": ADA, "cache_dir": tmp_path / "cache"}
    ids = np.array([[5, 6, 7]])
    for options in (where, {**where, "stream": True, "cache_dir": tmp_path / "none"}):
        again = TFBertForSequenceClassification.from_pretrained("ada/keras", **options)
        assert (again(ids).logits.numpy() == model(ids).logits.numpy()).all()
    model.save_pretrained(
        tmp_path / "keras",
        saved_model=True,
        safe_serialization=False,
        push_to_hub=True,
        repo_id="ada/keras",
        **to(server),
    )
    assert {"tf_model.h5", "saved_model/1/saved_model.pb"} <= names(server, "ada/keras")
    assert not shards & names(server, "ada/keras")
    model.compile()
    callback = PushToHubCallback(tmp_path / "training", hub_model_id="ada/training", hub_token=ADA, endpoint=server.url)
    model.fit({"input_ids": ids, "labels": np.array([1])}, verbose=0, callbacks=[callback])
    assert "model.safetensors" in names(server, "ada/training")
    again = TFBertForSequenceClassification.from_pretrained("ada/training", **where)
    again.compile()
    assert again.load_repo_checkpoint("ada/training", **where) == {"epoch": 1}
    assert int(again.optimizer.iterations) == 1
