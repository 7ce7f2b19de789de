"""Options, rules, dtypes and formats together: what a load and a save must not lose or change between them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.models.tiny import tiny_bert
from torch import nn

from pretrained import PretrainedConfig, PreTrainedModel
from pretrained.checkpoint.rules import Permute, Rule
from pretrained.errors import InvalidOptionError, TensorError
from pretrained.models.bert.configuration_bert import BertConfig
from pretrained.models.bert.modeling_bert import BertModel
from pretrained.models.bert.modeling_bert_heads import BertForMaskedLM
from pretrained.models.bert.modeling_bert_tasks import BertForSequenceClassification


class SquareConfig(PretrainedConfig):
    model_type = "squares"
    n: int = 3


class Squares(PreTrainedModel):
    config_class = SquareConfig

    def __init__(self, config: SquareConfig) -> None:
        super().__init__(config)
        self.a = nn.Linear(config.n, config.n, bias=False)
        self.b = nn.Linear(config.n, config.n, bias=False)
        self.post_init()


class Laid(Squares):
    """Its file has `a` under an older name and transposed, and `b` transposed."""

    _rules = (Rule(r"^old\.", "a.", (Permute((1, 0)),)), Rule(r"^b\.", "b.", (Permute((1, 0)),)))


class Kept(Squares):
    _keep_in_fp32_modules = ["a"]


SQUARE = torch.arange(9.0).view(3, 3)

# Labels


def saved_classifier(folder: Path) -> Path:
    names = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
    BertForSequenceClassification(tiny_bert(**names)).save_pretrained(folder)
    return folder


def test_another_number_of_labels_takes_both_tables_along(tmp_path: Path) -> None:
    folder = saved_classifier(tmp_path / "two")
    model = BertForSequenceClassification.from_pretrained(folder, num_labels=3, ignore_mismatched_sizes=True)
    expected = {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
    assert model.config.label2id == expected and list(model.config.id2label.values()) == list(expected)
    model.save_pretrained(tmp_path / "three")
    written = json.loads((tmp_path / "three" / "config.json").read_text())
    assert written["label2id"] == expected and len(written["id2label"]) == 3


def test_names_of_labels_replace_the_tables_of_the_file(tmp_path: Path) -> None:
    folder = saved_classifier(tmp_path)
    assert BertConfig.from_pretrained(folder, id2label={0: "x", 1: "y"}).label2id == {"x": 0, "y": 1}
    config = BertConfig.from_pretrained(folder, id2label={"0": "x", "1": "y", "2": "z"})
    assert config.num_labels == 3 and config.label2id == {"x": 0, "y": 1, "z": 2}


def test_the_same_number_of_labels_keeps_their_names(tmp_path: Path) -> None:
    config = BertConfig.from_pretrained(saved_classifier(tmp_path), num_labels=2)
    assert config.id2label == {0: "no", 1: "yes"} and config.label2id == {"no": 0, "yes": 1}


def test_a_number_of_labels_beside_a_table_in_the_file() -> None:
    values = {"num_labels": 2, "id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}
    config = BertConfig.from_dict(values, id2label={0: "x", 1: "y", 2: "z"})
    assert config.num_labels == 3 and config.label2id == {"x": 0, "y": 1, "z": 2}
    config = BertConfig.from_dict(values | {"num_labels": 4})
    assert config.num_labels == 4 and len(config.label2id) == 4
    own = BertConfig.from_dict(values, num_labels=3, label2id={"p": 0, "q": 1, "r": 2})
    assert own.num_labels == 3 and own.label2id == {"p": 0, "q": 1, "r": 2}


# Names and layouts


def test_a_key_mapping_never_writes_two_tensors_under_one_name(tmp_path: Path) -> None:
    model = Squares.from_pretrained(
        None, config=SquareConfig(), state_dict={"a.weight": SQUARE}, key_mapping={r"^a\.": "b."}
    )
    model.save_pretrained(tmp_path)
    written = load_file(tmp_path / "model.safetensors")
    assert set(written) == {"a.weight", "b.weight"} and torch.equal(written["b.weight"], SQUARE)
    assert torch.equal(Squares.from_pretrained(tmp_path, strict=True).b.weight, SQUARE)


def test_names_that_are_swapped_are_swapped_back(tmp_path: Path) -> None:
    SquareConfig().save_pretrained(tmp_path)
    sent = {"a.weight": SQUARE, "b.weight": SQUARE.T.contiguous()}
    save_file(sent, tmp_path / "model.safetensors", {"format": "pt"})
    mapping = {r"^a\.": "t.", r"^b\.": "a.", r"^t\.": "b."}
    model = Squares.from_pretrained(tmp_path, key_mapping=mapping)
    assert torch.equal(model.b.weight, SQUARE)
    model.save_pretrained(tmp_path / "again")
    written = load_file(tmp_path / "again" / "model.safetensors")
    assert all(torch.equal(written[name], sent[name]) for name in sent) and len(written) == 2


@pytest.mark.parametrize("safe", [True, False])
def test_a_rule_with_a_layout_is_undone_by_a_save(tmp_path: Path, safe: bool) -> None:
    state = {"old.weight": SQUARE, "b.weight": SQUARE + 1}
    model = Laid.from_pretrained(None, config=SquareConfig(), state_dict=state)
    assert torch.equal(model.a.weight, SQUARE.T) and torch.equal(model.b.weight, (SQUARE + 1).T)
    model.save_pretrained(tmp_path, safe_serialization=safe)
    if safe:
        written = load_file(tmp_path / "model.safetensors")
        assert all(torch.equal(written[name], state[name]) for name in state) and len(written) == 2
    again = Laid.from_pretrained(tmp_path, strict=True)
    assert torch.equal(again.a.weight, model.a.weight) and torch.equal(again.b.weight, model.b.weight)


def test_a_fresh_model_with_such_a_rule_comes_back(tmp_path: Path) -> None:
    model = Laid(SquareConfig())
    model.save_pretrained(tmp_path)
    again = Laid.from_pretrained(tmp_path, strict=True)
    assert torch.equal(again.a.weight, model.a.weight) and torch.equal(again.b.weight, model.b.weight)


# Dtypes


def test_a_float16_model_whose_first_part_stays_float32_is_saved_as_float16(tmp_path: Path) -> None:
    Kept(SquareConfig()).save_pretrained(tmp_path / "one")
    half = Kept.from_pretrained(tmp_path / "one", dtype=torch.float16)
    assert half.a.weight.dtype == torch.float32 and half.b.weight.dtype == torch.float16
    half.save_pretrained(tmp_path / "two")
    assert json.loads((tmp_path / "two" / "config.json").read_text())["dtype"] == "float16"
    again = Kept.from_pretrained(tmp_path / "two")
    assert again.a.weight.dtype == torch.float32 and torch.equal(again.b.weight, half.b.weight)
    assert again.b.weight.dtype == torch.float16


def test_a_dtype_for_a_part_that_is_not_there(reference: Path) -> None:
    folder = reference / "bert" / "torch-safetensors"
    with pytest.raises(InvalidOptionError, match="dtype: the model has no module or parameter 'encode'") as caught:
        BertModel.from_pretrained(folder, dtype={"": "bfloat16", "encode": "float32"})
    assert caught.value.key == "dtype"
    model = BertModel.from_pretrained(folder, dtype={"": "bfloat16", "encoder.layer.0": "float32"})
    assert model.encoder.layer[0].output.dense.weight.dtype == torch.float32


# The biases of a head


def test_an_untied_head_is_written_with_the_bias_of_its_decoder(tmp_path: Path) -> None:
    model = BertForMaskedLM(tiny_bert(tie_word_embeddings=False))
    with torch.no_grad():
        model.cls.predictions.bias.normal_()
    model.save_pretrained(tmp_path)
    written = load_file(tmp_path / "model.safetensors")
    assert torch.equal(written["cls.predictions.decoder.bias"], model.cls.predictions.bias)
    again = BertForMaskedLM.from_pretrained(tmp_path, strict=True)
    assert again.cls.predictions.decoder.bias is again.cls.predictions.bias
    assert torch.equal(again.cls.predictions.bias, model.cls.predictions.bias)


@pytest.mark.parametrize("is_tied", [True, False])
def test_of_two_biases_the_one_in_use_is_read(is_tied: bool) -> None:
    model = BertForMaskedLM(tiny_bert(tie_word_embeddings=is_tied))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state["cls.predictions.bias"] += 1
    state["cls.predictions.decoder.bias"] += 2
    loaded, report = BertForMaskedLM.from_pretrained(
        None, config=model.config, state_dict=state, output_loading_info=True
    )
    used = state["cls.predictions.bias" if is_tied else "cls.predictions.decoder.bias"]
    assert torch.equal(loaded.cls.predictions.decoder.bias, used) and len(report["conflicts"]) == 1


# Values that make no sense


@pytest.mark.parametrize("value", [[("a", 1)], "abc", 5])
def test_a_state_dict_that_is_no_dict(tmp_path: Path, value: Any) -> None:
    with pytest.raises(InvalidOptionError, match="state_dict is a dict of name → tensor, not a"):
        BertModel.from_pretrained(None, config=tiny_bert(), state_dict=value)
    with pytest.raises(InvalidOptionError, match="state_dict is a dict of name → tensor, not a"):
        Squares(SquareConfig()).save_pretrained(tmp_path, state_dict=value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.zeros(3, 3, device="meta"), "not a tensor with values"),
        (torch.zeros(3, 3).numpy().astype(object), "has the dtype object, which no tensor can have"),
    ],
)
def test_a_state_dict_of_what_has_no_values(value: Any, words: str) -> None:
    with pytest.raises(TensorError, match=words) as caught:
        Squares.from_pretrained(None, config=SquareConfig(), state_dict={"a.weight": value})
    assert caught.value.tensor == "a.weight"


@pytest.mark.parametrize(
    ("option", "words"),
    [({"variant": 5}, "variant 5 must be a plain word"), ({"save_function": 5}, "save_function is called for each")],
)
def test_options_of_a_save_that_make_no_sense(tmp_path: Path, option: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidOptionError, match=words):
        Squares(SquareConfig()).save_pretrained(tmp_path, **option)


def test_a_device_beyond_what_torch_can_number(reference: Path) -> None:
    with pytest.raises(InvalidOptionError, match="there is no device 5000 here"):
        BertModel.from_pretrained(reference / "bert" / "torch-safetensors", device_map=5000)


# Checksums of a .bin


@pytest.mark.parametrize("options", [{}, {"mmap": False}, {"dtype": "bfloat16"}, {"device_map": "cpu"}])
def test_a_flipped_bit_of_a_bin_is_noticed(tmp_path: Path, options: dict[str, Any]) -> None:
    Squares(SquareConfig(n=64)).save_pretrained(tmp_path, safe_serialization=False)
    assert Squares.from_pretrained(tmp_path, **options).a.weight.shape == (64, 64)
    path = tmp_path / "pytorch_model.bin"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    path.write_bytes(raw)
    with pytest.raises(OSError, match=r"pytorch_model\.bin: tensor '[ab]\.weight': .* recorded checksum"):
        Squares.from_pretrained(tmp_path, **options)
