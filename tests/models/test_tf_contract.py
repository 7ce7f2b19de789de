"""What every TensorFlow class of every family does: the contract of TFPreTrainedModel, held against the registry.

The weights are torch's, and so are the outputs, the losses, the gradients and the files that are expected.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from contract_cases import compare
from safetensors.torch import load_file
from test_contract import assert_drawn_alike, has_token_head, prunable
from tf_contract_cases import CASES, arrays_of

from pretrained.auto import registry
from pretrained.errors import MismatchError

every = pytest.mark.parametrize("case", CASES, ids=str)
# One class for each way to call a head, and the bases: what differs between the others is tested of every class.
BASES = [case for case in CASES if case.is_base]
CALLS = list({case.cls.module_class.call: case for case in CASES if not case.is_base}.values())
bases = pytest.mark.parametrize("case", BASES, ids=str)
calls = pytest.mark.parametrize("case", CALLS, ids=str)
both = pytest.mark.parametrize("case", [*BASES, *CALLS], ids=str)
ASKED = {"output_hidden_states": True, "output_attentions": True}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Torch's threads wait for each other longer than models this small take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def values_of(model: Any) -> dict[str, np.ndarray]:
    return {name: variable.numpy() for name, variable in model.structure.variables.items()}


def assert_same_values(model: Any, expected: dict[str, np.ndarray]) -> None:
    found = values_of(model)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and np.array_equal(found[name], value), name


def test_every_family_with_a_torch_side_says_what_it_has():
    assert len(CASES) > 50
    for model_type in registry.FOLDERS:
        for auto in registry._family(model_type).tf:
            assert auto in registry.TF_AUTO_NAMES


@every
def test_outputs_are_those_of_torch(case):
    """With padding, states and weights; and a plain tuple of the same."""
    assert case.cls.config_class is case.torch.cls.config_class
    assert case.cls.base_model_prefix == case.torch.cls.base_model_prefix
    assert case.cls.main_input_name == case.torch.cls.main_input_name
    assert case.cls.can_generate() == case.torch.cls.can_generate()
    output = case.shared(case.inputs, **ASKED)
    expected = case.run_torch(case.torch.shared, **ASKED)
    found = arrays_of(output)
    compare(found, expected, case.inputs.get("attention_mask"))
    assert [n for n in output if n != "past_key_values"] == list(dict.fromkeys(n.partition(".")[0] for n in expected))
    plain = case.shared(case.inputs, **ASKED, return_dict=False)
    assert type(plain) is tuple and len(plain) == len(output)
    for one, other in zip(plain, output.to_tuple(), strict=True):
        assert type(one) is type(other)
        assert all(np.array_equal(a, b) for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True))


@every
def test_files_are_those_of_torch(case, tmp_path):
    """What we write in safetensors torch's class reads, and the other way round; what HDF5 has comes back as it was."""
    case.shared.save_pretrained(tmp_path / "safe", durable=False)
    written, expected = (load_file(folder / "model.safetensors") for folder in (tmp_path / "safe", case.folder))
    assert written.keys() == expected.keys() and all(torch.equal(v, expected[name]) for name, v in written.items())
    configs = [json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "safe", case.folder)]
    assert configs[0] == configs[1]
    report = case.torch.cls.from_pretrained(tmp_path / "safe", output_loading_info=True)[1]
    assert not (report["missing_keys"] or report["unexpected_keys"])
    own = values_of(case.shared)
    assert_same_values(case.load(tmp_path / "safe"), own)
    case.shared.save_pretrained(tmp_path / "h5", safe_serialization=False, durable=False)
    assert_same_values(case.load(tmp_path / "h5"), own)
    if case.is_base:
        case.shared.save_pretrained(tmp_path / "h5", safe_serialization=False, max_shard_size="9KB", durable=False)
        assert len(list((tmp_path / "h5").glob("*.h5"))) > 1
        assert_same_values(case.load(tmp_path / "h5"), own)


@every
def test_a_checkpoint_that_lacks_and_has_too_much(case):
    """What is missing is drawn as for a fresh model of the same seed, and both are told; strictly it is an error."""
    tensors = load_file(case.folder / "model.safetensors")
    places = [name for name in case.shared.structure.by_name if name in tensors]
    lacking, crooked = places[len(places) // 2], places[-1]
    given = dict(tensors, **{"an.extra": torch.zeros(2)})
    del given[lacking]
    arguments: dict[str, Any] = {"config": case.torch.config(), "state_dict": given, "seed": 4}
    model, report = case.cls.from_pretrained(None, **arguments, output_loading_info=True)
    assert (report["missing_keys"], report["unexpected_keys"]) == ([lacking], ["an.extra"])
    drawn = values_of(case.fresh(seed=4))
    assert_same_values(model, values_of(case.shared) | {lacking: drawn[lacking]})
    if case.is_base:
        with pytest.raises(MismatchError) as caught:
            case.cls.from_pretrained(None, **arguments, strict=True)
        assert list(caught.value.complaints) == [
            f"{lacking}: missing from the checkpoint",
            "an.extra: not a parameter of the model",
        ]
        with pytest.raises(MismatchError, match="matches no tensor of"):
            case.cls.from_pretrained(None, **arguments | {"state_dict": {"an.extra": torch.zeros(2)}})
    shape = tuple(tensors[crooked].shape)
    arguments["state_dict"] = dict(tensors, **{crooked: torch.zeros((3, *shape))})
    with pytest.raises(MismatchError) as caught:
        case.cls.from_pretrained(None, **arguments)
    (complaint,) = caught.value.complaints
    assert all(part in complaint for part in (crooked, str([3, *shape]), str([*shape])))
    if case.is_base:
        arguments |= {"ignore_mismatched_sizes": True, "output_loading_info": True}
        model, report = case.cls.from_pretrained(None, **arguments)
        assert [name for name, *_ in report["mismatched_keys"]] == [crooked] and not report["missing_keys"]
        assert_same_values(model, values_of(case.shared) | {crooked: drawn[crooked]})


@pytest.mark.parametrize("case", [case for case in CASES if not case.is_base], ids=str)
def test_base_and_head_read_each_other(case, tmp_path):
    base = next(other for other in CASES if other.torch.cls is case.torch.base)
    prefix, own, body = f"{case.cls.base_model_prefix}.", values_of(case.shared), values_of(base.shared)
    places = {name: prefix + name if prefix + name in own else name for name in body}
    shared = {name: place for name, place in places.items() if place in own}
    assert len(shared) > 0.4 * len(body)
    safe = len(case.cls.__name__) % 2 == 0  # every second head in HDF5
    case.shared.save_pretrained(tmp_path / "head", safe_serialization=safe, durable=False)
    model, report = base.cls.from_pretrained(tmp_path / "head", output_loading_info=True)
    assert set(report["missing_keys"]) == body.keys() - shared.keys() and not report["mismatched_keys"]
    found = values_of(model)
    assert all(np.array_equal(found[name], own[place]) for name, place in shared.items())
    base.shared.save_pretrained(tmp_path / "base", safe_serialization=safe, durable=False)
    model, report = case.cls.from_pretrained(tmp_path / "base", output_loading_info=True)
    assert set(report["missing_keys"]) == own.keys() - set(shared.values()) and not report["mismatched_keys"]
    found = values_of(model)
    assert all(np.array_equal(found[place], body[name]) for name, place in shared.items())


@every
def test_a_config_gives_a_model_drawn_as_torch_draws(case):
    torch.manual_seed(1)
    expected = dict(case.torch.cls(case.torch.config()).named_parameters())
    config = case.torch.config()
    model = case.cls.from_config(config)
    drawn = values_of(model)
    assert set(drawn) == set(expected) and model.config is not config and model.config.to_dict() == config.to_dict()
    for name, value in drawn.items():
        assert_drawn_alike(name, expected[name].detach(), torch.from_numpy(value))
    trained = {variable.name for variable in model.trainable_variables}
    assert trained == {name for name, parameter in expected.items() if parameter.requires_grad}
    assert case.cls.main_input_name in model.dummy_inputs
    found = arrays_of(model(model.dummy_inputs))
    assert found and all(np.isfinite(value).all() for value in found.values())


@every
def test_losses_and_gradients_are_those_of_torch(case):
    """A gradient for every variable that is trained. What a decoder gives at padding before a text is not defined."""
    model = case.torch.copy()  # in eval mode: nothing is dropped
    inputs = {name: value for name, value in case.inputs.items() if name != "attention_mask"} | case.labels
    output = model(**{name: torch.from_numpy(value) for name, value in inputs.items()})
    names = [name for name in ("loss", "mc_loss") if name in output]
    assert bool(names) == bool(case.labels)
    expected = sum(output[name] for name in names) if names else squares(output, torch.Tensor)
    expected.backward()
    variables = case.shared.trainable_variables
    with tf.GradientTape() as tape:
        output = case.shared(inputs)
        loss = sum(output[name] for name in names) if names else squares(output, tf.Tensor)
    assert loss.shape == () and abs(float(loss) - expected.item()) < 2e-5 * max(1, abs(float(loss)))
    wanted = {name: parameter.grad for name, parameter in model.named_parameters()}
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        one, other = wanted.pop(variable.name), gradient
        assert (one is None) == (other is None), variable.name
        if one is not None:
            worst = np.abs(tf.convert_to_tensor(other).numpy() - one.numpy()).max()
            assert worst <= 1e-5 + 1e-4 * one.abs().max(), f"{variable.name} is off by {worst}"
    assert all(gradient is None for gradient in wanted.values())


def squares(output: Any, kind: type) -> Any:
    found = [value for value in output.values() if isinstance(value, kind)]
    return sum((value**2).mean() if kind is torch.Tensor else tf.reduce_mean(value**2) for value in found)


@calls
def test_a_program_computes_the_same(case):
    """What a model serves: sizes of batch and text are those of a run."""
    signature = case.shared.input_signature
    inputs = {name: tf.cast(case.inputs.get(name, 0), spec.dtype) for name, spec in signature.items()}
    zeros = {name: tf.zeros_like(inputs["input_ids"]) for name in signature if name not in case.inputs}
    inputs |= zeros
    served = {name: value.numpy() for name, value in case.shared.serving(inputs).items()}
    expected = case.run(case.shared, {name: value.numpy() for name, value in inputs.items()})
    compare(served, expected, atol=1e-5)


@bases
def test_xla_computes_the_same(case):
    def call(inputs: Any) -> Any:
        return case.shared(inputs)

    inputs = {name: tf.constant(value) for name, value in (case.inputs | case.labels).items()}
    expected = case.run(case.shared, inputs)
    found = arrays_of(tf.function(call, jit_compile=True)(inputs))
    compare(found, expected, atol=1e-5)


@bases
def test_a_copy_and_keras_files(case, tmp_path):
    """A copy has variables and a config of its own; Keras's files bring the same model back."""
    own = values_of(case.shared)
    expected = case.run(case.shared)
    model = copy.deepcopy(case.shared)
    assert type(model) is case.cls and model.config is not case.shared.config
    assert model.config.to_dict() == case.shared.config.to_dict()
    assert_same_values(model, own)
    compare(case.run(model), expected, atol=0.0)
    for variable in model.trainable_variables:
        variable.assign_add(tf.ones_like(variable))
    assert_same_values(case.shared, own)
    case.shared.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again) is case.cls
    assert_same_values(again, own)
    compare(case.run(again), expected, atol=1e-6)
    case.shared.save_weights(tmp_path / "model.weights.h5")
    model.load_weights(tmp_path / "model.weights.h5")
    assert_same_values(model, own)


@pytest.fixture
def policy() -> Iterator[Any]:
    yield keras.mixed_precision.set_global_policy
    keras.mixed_precision.set_global_policy("float32")


WIDE = {"codevector_perplexity"}  # a statistic, as a loss is


@both
def test_half_precision(case, policy):
    """A mixed policy computes in bfloat16 on variables of float32; a model of bfloat16 has them in it, too."""
    expected = case.run(case.shared)
    inputs = {n: tf.cast(v, "bfloat16") if v.dtype.kind == "f" else v for n, v in case.inputs.items()}
    half = [case.load(dtype="bfloat16")] if case.is_base else []
    policy("mixed_bfloat16")
    mixed = case.load()
    assert_same_values(mixed, values_of(case.shared))
    assert all(str(variable.dtype) == "bfloat16" for model in half for variable in model.trainable_variables)
    for model, given in ((mixed, case.inputs), *((model, inputs) for model in half)):
        found = case.run(model, given)
        assert {value.dtype.name for name, value in found.items() if name not in WIDE} == {"bfloat16"}
        compare(found, expected, case.inputs.get("attention_mask"), atol=0.25)
    with tf.GradientTape() as tape:
        output = mixed({**case.inputs, **case.labels})
        loss = output.loss if "loss" in output else tf.cast(squares(output, tf.Tensor), "float32")
    assert loss.dtype == tf.float32 and np.isfinite(loss)
    for variable, gradient in zip(
        mixed.trainable_variables, tape.gradient(loss, mixed.trainable_variables), strict=True
    ):
        if gradient is not None:
            assert gradient.dtype == "float32" and np.isfinite(tf.convert_to_tensor(gradient)).all(), variable.name


@bases
def test_what_is_dropped_follows_from_the_seed(case):
    rates = {name: 0.4 for name, value in vars(case.torch.config()).items() if "drop" in name and value != 0.4}
    rates = {name: rate for name, rate in rates.items() if name != "layerdrop"}
    one, same, other = (case.load(seed=seed, **rates) for seed in (0, 0, 1))
    first = case.run(one, training=True)
    compare(case.run(same, training=True), first, atol=0.0)
    for drawn in (case.run(one, training=True), case.run(other, training=True)):
        assert any(not np.array_equal(value, drawn[name]) for name, value in first.items())
    compare(case.run(one), case.run(case.shared), atol=0.0)


@both
def test_heads_that_are_pruned_and_tokens_that_are_added(case, tmp_path):
    """Torch's class, pruned alike, computes the same; what a base saves after both it reads."""
    model, twin, table = case.load(), case.torch.copy(), prunable(case.torch)
    count, before = model.num_parameters(), values_of(model)
    model.prune_heads(table)
    twin.prune_heads(table)
    assert model.num_parameters() == twin.num_parameters() < count and model.config.pruned_heads == table
    assert {v.name for v in model.trainable_variables} == {v.name for v in case.shared.trainable_variables}
    mask = case.inputs.get("attention_mask")
    compare(case.run(model), case.run_torch(twin), mask)
    if "input_ids" in case.inputs:
        size = model.config.vocab_size
        layer = model.resize_token_embeddings(size + 5)
        assert layer is model.get_input_embeddings() and layer.weight.shape[0] == size + 5
        assert model.config.vocab_size == size + 5
        pruned = {name: value for name, value in values_of(model).items() if value.shape == before[name].shape}
        assert all(np.array_equal(value, before[name]) for name, value in pruned.items())
        grown = [name for name, value in values_of(model).items() if size + 5 in value.shape]
        assert len(grown) >= 1 + (has_token_head(case.torch) and not model.config.tie_word_embeddings)
        model.resize_token_embeddings(size - 3)
        for name in grown:
            assert np.array_equal(values_of(model)[name], before[name][: size - 3]), name
    else:
        with pytest.raises(NotImplementedError, match=f"{case.cls.__name__} "):
            model.resize_token_embeddings(7)
    if not case.is_base:
        return
    model.save_pretrained(tmp_path / "safe", durable=False)
    again, report = case.torch.cls.from_pretrained(
        tmp_path / "safe", attn_implementation="eager", output_loading_info=True
    )
    assert not (report["missing_keys"] or report["unexpected_keys"] or report["mismatched_keys"])
    limit = getattr(again.config, "vocab_size", None)
    inputs = {name: np.minimum(v, limit - 1) if v.dtype.kind == "i" else v for name, v in case.inputs.items()}
    compare(case.run(model, inputs), case.run_torch(again, inputs), mask)
    model.save_pretrained(tmp_path / "h5", safe_serialization=False, durable=False)
    assert_same_values(case.load(tmp_path / "h5"), values_of(model))


@pytest.mark.parametrize("case", [case for case in CASES if case.is_base or has_token_head(case.torch)], ids=str)
def test_tables_of_tokens(case, tmp_path):
    """Getting and setting them, tied as the config says it and the other way."""
    model, twin = case.load(), case.torch.copy()
    if model.get_input_embeddings() is None:
        assert "input_ids" not in case.inputs
        with pytest.raises(NotImplementedError, match=f"{case.cls.__name__} has no such table of tokens"):
            model.set_input_embeddings(np.zeros((2, 2)))
        return
    table = np.random.default_rng(0).normal(size=model.get_input_embeddings().weight.shape).astype(np.float32)
    model.set_input_embeddings(table)
    twin.get_input_embeddings().weight.data = torch.from_numpy(table)
    compare(case.run(model), case.run_torch(twin), case.inputs.get("attention_mask"), 1e-4)
    if not has_token_head(case.torch):
        assert model.get_output_embeddings() is None
        with pytest.raises(NotImplementedError, match=f"{case.cls.__name__} has no such table of tokens"):
            model.set_output_embeddings(table)
        return
    own = model.config.tie_word_embeddings
    for tied in (own, not own) if case.cls.can_generate() else (not own,):
        torch_model = case.torch.build(tie_word_embeddings=tied)
        torch_model.save_pretrained(tmp_path / str(tied), durable=False)
        model = case.load(tmp_path / str(tied))
        assert model.num_parameters() == torch_model.num_parameters()
        assert (model.get_input_embeddings() is model.get_output_embeddings()) is tied
        compare(case.run(model), case.run_torch(torch_model), case.inputs.get("attention_mask"))
        model.set_output_embeddings(table)
        assert np.array_equal(model.get_output_embeddings().weight, table)
        assert np.array_equal(model.get_input_embeddings().weight, table) is tied
        model.resize_token_embeddings(len(table) + 1)
        assert (model.get_input_embeddings() is model.get_output_embeddings()) is tied
        model.save_pretrained(tmp_path / "again", durable=False)
        again = case.torch.cls.from_pretrained(tmp_path / "again", attn_implementation="eager")
        compare(case.run(model), case.run_torch(again), case.inputs.get("attention_mask"), 1e-4)
