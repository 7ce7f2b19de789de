"""The cases of tests/reference/*_heads in JAX, and what tests of JAX families share."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import numpy as np
from drawn_weights import draw
from safetensors.numpy import load_file
from tiny import REFERENCE, TINY

from pretrained.flax.structure import nest

# What only losses need: these classes have none.
NO_INPUTS = ("labels", "start_positions", "end_positions", "sampled_negative_indices")
NO_OUTPUTS = ("loss", "contrastive_loss", "diversity_loss", "past_key_values")


def find_flax(family: str, name: str) -> Any:
    """The JAX class of a family that is called so, or so less `Flax`."""
    declared = import_module(f"pretrained.models.{family}.family").FAMILY
    places = [place.split(":") for place in (*declared.flax.values(), *declared.names)]
    wanted = "Flax" + name.removeprefix("Flax")
    module = next(module for module, found in places if found == wanted)
    return getattr(import_module(f"pretrained.models.{family}.{module}"), wanted)


def arrays_of(path: Path) -> dict[str, Any]:
    with np.load(path) as arrays:
        return dict(arrays)


def params_of(model: Any, values: Any) -> dict[str, Any]:
    """The parameters of a model, each what `values` gives for its name and shape."""
    return nest({place.path: np.asarray(values(place.name, place.shape)) for place in model.structure.places})


def filled(cls: Any, config: Any, **arguments: Any) -> Any:
    """A model each of whose parameters has values of its own, which follow from its name."""
    model = cls(config, _do_init=False, **arguments)
    model._is_initialized, model._values = True, jax.device_put(params_of(model, draw))
    return model


def run_flax_case(family: str, case: str, attention: str = "eager") -> tuple[Any, dict[str, Any]]:
    """Output of one case, and what torch gave."""
    folder = REFERENCE / f"{family}_heads"
    described = json.loads((folder / "cases.json").read_text())
    spec, inputs = described["cases"][case], arrays_of(folder / "inputs.npz")
    cls = find_flax(family, spec["class"])
    values = described["base"] | spec.get("config", {})
    config = cls.config_class.from_dict(values, attn_implementation=attention)
    model = cls(config, _do_init=False, **spec.get("arguments", {}))
    if (folder / "model.safetensors").is_file():
        weights, prefix = load_file(folder / "model.safetensors"), f"{cls.base_model_prefix}."

        def stored(name: str, shape: Any) -> Any:
            names = (f"{case}|{name}", name, prefix + name, name.removeprefix(prefix))
            return weights[next(key for key in names if key in weights)]

        params = params_of(model, stored)
    else:
        params = params_of(model, draw)
    given = {k: inputs[v[1:]] if isinstance(v, str) else v for k, v in spec["inputs"].items()}
    if "labels" in given and family == "t5" and spec["class"].endswith("Generation"):
        given.setdefault("decoder_input_ids", model.prepare_decoder_input_ids_from_labels(given["labels"]))
    output = model(**{k: v for k, v in given.items() if k not in NO_INPUTS}, params=params)
    everything = arrays_of(folder / "expected.npz")
    expected = {name.split("/")[1]: value for name, value in everything.items() if name.startswith(f"{case}/")}
    return output, {name: value for name, value in expected.items() if name not in NO_OUTPUTS}


def pick(output: Any, name: str) -> Any:
    """`logits`, or `attentions.0`, of an output."""
    field, _, index = name.partition(".")
    return output[field][int(index)] if index else output[field]


def check_case(family: str, case: str, attention: str = "eager", limit: float = 2e-5) -> Any:
    """Runs a case and compares all that torch gave; returns the output.

    Operation by operation: many cases share these, where each would be a program of its own to compile.
    """
    with jax.disable_jit():
        output, expected = run_flax_case(family, case, attention)
    assert expected
    for name, value in expected.items():
        found = np.asarray(pick(output, name))
        assert found.shape == value.shape, name
        np.testing.assert_allclose(found, value, atol=limit, rtol=0, err_msg=name)
    return output


def check_reference(family: str, name: str, folder: str) -> None:
    """Loads one of the reference's checkpoints and compares what it computes with what torch did."""
    place = REFERENCE / family
    model, expected = find_flax(family, name).from_pretrained(place / folder), arrays_of(place / "expected.npz")
    inputs = arrays_of(place / "inputs.npz")
    output = model(**{key: value for key, value in inputs.items() if not ("Encoder" in name and "decoder" in key)})
    keys = [key for key in expected if key.startswith(f"torch/{name}/")]
    assert keys
    for key in keys:
        np.testing.assert_allclose(output[key.split("/")[2]], expected[key], atol=2e-5, rtol=0)


def check_round_trip(cls: Any, model_type: str, folder: Path, safe: bool, **changes: Any) -> Any:
    """Saves a model and loads it again: the same names, the same bits, the same config."""
    model = filled(cls, TINY[model_type](**changes))
    model.save_pretrained(folder, safe_serialization=safe, durable=False, max_shard_size="9kB")
    again, report = cls.from_pretrained(folder, output_loading_info=True, strict=True)
    assert report["missing_keys"] == report["unexpected_keys"] == []
    assert jax.tree.structure(model.params) == jax.tree.structure(again.params)
    assert all(map(np.array_equal, jax.tree.leaves(model.params), jax.tree.leaves(again.params)))
    assert model.config.to_dict() == again.config.to_dict()
    return again
