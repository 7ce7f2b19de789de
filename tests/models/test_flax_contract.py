"""What every JAX class of every family does: the contract of FlaxPreTrainedModel, held against all of the registry.

The weights are torch's, and so are the outputs, the gradients and the files that are expected. Most calls are not
compiled: small programs take longer to compile than to run by parts that all classes share.
"""

from __future__ import annotations

import json
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax_cases import CASES, FlaxCase, arrays_of, compare
from safetensors.torch import load_file
from test_contract import assert_drawn_alike, has_token_head, prunable, tensors_of

from pretrained import FlaxPreTrainedModel
from pretrained.auto import registry
from pretrained.flax.structure import flatten

every = pytest.mark.parametrize("case", CASES, ids=str)
ASKED = {"output_hidden_states": True, "output_attentions": True}


def run(case: FlaxCase, model: Any, inputs: Any = None, **more: Any) -> dict[str, np.ndarray]:
    with jax.disable_jit():
        return arrays_of(model(**(inputs or case.inputs), **more))


def named(tree: Any) -> dict[str, Any]:
    return {".".join(path): value for path, value in flatten(tree).items()}


def test_every_family_with_a_torch_side_says_what_it_has():
    assert len(CASES) > 8
    for model_type in registry.FOLDERS:
        for auto in registry._family(model_type).flax:
            assert auto in registry.FLAX_AUTO_NAMES


@every
def test_outputs_are_those_of_torch(case):
    """With padding, states and weights; and a plain tuple of the same."""
    assert issubclass(case.cls, FlaxPreTrainedModel) and case.cls.config_class is case.torch.cls.config_class
    assert case.cls.base_model_prefix == case.torch.cls.base_model_prefix
    assert case.cls.can_generate() == case.torch.cls.can_generate()
    with jax.disable_jit(not case.is_base):
        output = case.shared(**case.inputs, **ASKED)
    expected = case.run_torch(case.torch.shared, **ASKED)
    compare(arrays_of(output), expected, case.inputs.get("attention_mask"))
    assert [n for n in output if n != "past_key_values"] == list(dict.fromkeys(n.partition(".")[0] for n in expected))
    with jax.disable_jit():
        plain = case.shared(**case.inputs, **ASKED, return_dict=False)
    assert type(plain) is tuple and len(plain) == len(output)


@every
def test_files_are_those_of_torch(case, tmp_path):
    """What we write in safetensors torch's class reads, and the other way round; msgpack comes back as it was."""
    case.shared.save_pretrained(tmp_path / "safe", durable=False)
    written, expected = (load_file(folder / "model.safetensors") for folder in (tmp_path / "safe", case.folder))
    assert written.keys() == expected.keys() and all(torch.equal(v, expected[name]) for name, v in written.items())
    assert json.loads((tmp_path / "safe/config.json").read_text())["architectures"] == [
        case.cls.__name__.removeprefix("Flax")
    ]
    report = case.torch.cls.from_pretrained(tmp_path / "safe", output_loading_info=True)[1]
    assert not (report["missing_keys"] or report["unexpected_keys"])
    case.shared.save_pretrained(tmp_path / "msgpack", safe_serialization=False, max_shard_size="9KB", durable=False)
    assert len(list((tmp_path / "msgpack").glob("*.msgpack"))) > 1
    own = named(case.shared.params)
    for again in (case.load(tmp_path / "safe"), case.load(tmp_path / "msgpack")):
        assert {name: value.shape for name, value in own.items()} == {
            n: v.shape for n, v in named(again.params).items()
        }
        assert all(np.array_equal(value, own[name]) for name, value in named(again.params).items())


@every
def test_a_fresh_model_is_drawn_as_torch_draws(case):
    """And what is missing is filled in, whatever is there being kept."""
    torch.manual_seed(1)
    fresh = dict(case.torch.cls(case.torch.config()).named_parameters())
    model = case.cls(case.torch.config(), seed=1)
    drawn = named(model.params)
    assert set(drawn) == set(fresh) and set(drawn) == {".".join(path) for path in model.required_params}
    for name, value in drawn.items():
        assert_drawn_alike(name, fresh[name].detach(), torch.from_numpy(np.array(value)))
    flat = flatten(case.shared.params)
    lacking = next(path for path, value in flat.items() if value.ndim > 1)
    given: Any = jax.tree.map(lambda x: x, case.shared.params)
    inner = given
    for key in lacking[:-1]:
        inner = inner[key]
    del inner[lacking[-1]]
    completed = flatten(case.shared.init_weights(jax.random.key(1), params=given))
    assert completed.keys() == flat.keys()
    assert all(value is flat[path] for path, value in completed.items() if path != lacking)
    assert np.array_equal(completed[lacking], drawn[".".join(lacking)])


@every
def test_gradients_are_those_of_torch(case):
    """Through `params=`, and again where layers are computed twice."""
    model = case.torch.copy()  # in eval mode: nothing is dropped
    sum(value.square().mean() for value in tensors_of(model(**case.torch.inputs)).values()).backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    params, inputs = case.shared.params, {name: value.numpy() for name, value in case.torch.inputs.items()}

    def loss(params: Any, one: Any = case.shared) -> Any:
        output = one(**inputs, params=params)
        return sum(jnp.square(value).mean() for name, value in output.items() if isinstance(value, jax.Array))

    with jax.disable_jit():
        found = named(jax.grad(loss)(params))
    for name, gradient in found.items():
        wanted = expected[name]
        assert np.allclose(gradient, 0 if wanted is None else wanted.numpy(), atol=1e-5, rtol=1e-4), name
    if not case.is_base:
        return
    again = case.load(gradient_checkpointing=True)
    written = str(jax.make_jaxpr(lambda params: loss(params, again))(params))
    assert written.count("checkpoint") + written.count("remat") >= case.torch.layers
    with jax.disable_jit():
        twice = named(jax.grad(loss)(params, again))
    assert all(np.allclose(twice[name], gradient, atol=1e-6, rtol=1e-4) for name, gradient in found.items())


@pytest.mark.parametrize("case", [case for case in CASES if case.cls.__name__ == "FlaxBertModel"], ids=str)
def test_a_step_of_training_compiles(case):
    """As a whole: a function of the parameters, which the model then takes, and its module with it."""
    inputs = {name: value.numpy() for name, value in case.torch.inputs.items()}

    def loss(params: Any) -> Any:
        return jnp.square(case.shared(**inputs, params=params)[0]).mean()

    @jax.jit
    def step(params: Any) -> Any:
        return jax.tree.map(lambda value, gradient: value - 0.1 * gradient, params, jax.grad(loss)(params))

    updated = step(case.shared.params)
    assert loss(updated) < loss(case.shared.params)
    model = case.load()
    module = model.module
    model.params = updated
    assert model.module is module and loss(model.params) == loss(updated)


@every
def test_what_is_dropped_follows_from_the_key(case):
    rates = {name: 0.4 for name, value in vars(case.torch.config()).items() if "drop" in name and value != 0.4}
    rates = {name: rate for name, rate in rates.items() if name != "layerdrop"}
    model = case.cls(case.torch.config(**rates), _do_init=False)
    given = {"params": case.shared.params, "train": True}
    keys = [jax.random.key(seed) for seed in (0, 0, 1)]
    first, same, other = (run(case, model, dropout_rng=key, **given) for key in keys)
    assert all(np.array_equal(value, same[name]) for name, value in first.items())
    assert any(not np.array_equal(value, other[name]) for name, value in first.items())
    still = run(case, model, params=case.shared.params)
    compare(still, run(case, case.shared), atol=1e-6)
    assert any(not np.array_equal(value, first[name]) for name, value in still.items())
    with pytest.raises(ValueError, match="train=True needs dropout_rng="):
        model(**case.inputs, **given)


@every
def test_half_precision(case):
    """Computing in bfloat16 leaves the parameters as they are; parameters of bfloat16 compute in it."""
    expected = run(case, case.shared)
    model = case.load(dtype="bfloat16")
    half = case.shared.to_bf16(case.shared.params)
    assert model.dtype == jnp.bfloat16 and {value.dtype.name for value in named(model.params).values()} == {"float32"}
    inputs = {n: v.astype(jnp.bfloat16) if v.dtype.kind == "f" else v for n, v in case.inputs.items()}
    for found in (run(case, model, inputs), run(case, case.shared, inputs, params=half)):
        wide = {"codevector_perplexity"}  # a statistic, as a loss is
        assert {value.dtype.name for name, value in found.items() if name not in wide} == {"bfloat16"}
        compare(found, expected, case.inputs.get("attention_mask"), atol=0.25)


@every
def test_heads_that_are_pruned_and_tokens_that_are_added(case, tmp_path):
    """Torch's class, pruned alike, computes the same; what is saved after both it reads."""
    model, twin, table = case.load(), case.torch.copy(), prunable(case.torch)
    count = model.num_parameters()
    twin.prune_heads(table)
    before = named(model.prune_heads(table))
    assert before.keys() == {".".join(path) for path in model.required_params}
    assert model.num_parameters() == twin.num_parameters() < count and model.config.pruned_heads == table
    mask = case.inputs.get("attention_mask")
    compare(run(case, model), case.run_torch(twin), mask)
    if "input_ids" in case.inputs:
        size = model.config.vocab_size
        resized = named(model.resize_token_embeddings(size + 5))
        grown = [name for name, value in resized.items() if value.shape != before[name].shape]
        assert grown and all(size + 5 in resized[name].shape for name in grown)
        assert len(grown) >= 1 + (has_token_head(case.torch) and not model.config.tie_word_embeddings)
        model.resize_token_embeddings(size - 3)
        for name in grown:
            kept = before[name][: size - 3] if before[name].shape[0] == size else before[name]
            assert np.array_equal(named(model.params)[name], kept), name
    model.save_pretrained(tmp_path, durable=False)
    again, report = case.torch.cls.from_pretrained(tmp_path, attn_implementation="eager", output_loading_info=True)
    assert not (report["missing_keys"] or report["unexpected_keys"] or report["mismatched_keys"])
    limit = getattr(again.config, "vocab_size", None)
    inputs = {name: np.minimum(v, limit - 1) if v.dtype.kind == "i" else v for name, v in case.inputs.items()}
    compare(run(case, model, inputs), case.run_torch(again, inputs), mask)


@every
def test_the_class_says_how_it_is_spread_over_devices(case):
    """Every matrix of a layer is split over the axis "model"; tables of relative positions may be on every device."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "model"))
    shardings = named(case.shared.param_shardings(mesh))
    split = {name for name, sharding in shardings.items() if "model" in sharding.spec}
    matrices = {name for name, value in named(case.shared.params).items() if value.ndim == 2}
    layers = {name for name in matrices if re.search(r"\.\d+\.", name) and not re.search(r"(bias|embedding)\.", name)}
    assert layers and layers <= split, sorted(layers - split)
