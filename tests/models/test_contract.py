"""What every class of every family does: the contract of the base class, held against all of the registry.

A family that is added needs a tiny config in tiny.TINY, and where it is unlike the others a line in a table here or in
contract_cases.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from contract_cases import CASES, Case, labels_for
from parity_draws import DRAWS
from safetensors.torch import load_file
from tiny import TINY
from torch import Tensor, nn

from pretrained import PreTrainedModel
from pretrained.auto import registry

every = pytest.mark.parametrize("case", CASES, ids=str)


def having(name: str) -> Any:
    """The classes whose forward takes `name`."""
    return pytest.mark.parametrize("case", [case for case in CASES if name in case.parameters], ids=str)


def those(test: Callable[[Case], Any]) -> Any:
    """The classes of which `test` is true; one that cannot be built is among them, and fails where its name is seen."""

    def is_wanted(case: Case) -> bool:
        try:
            return bool(test(case))
        except Exception:
            return True

    return pytest.mark.parametrize("case", list(filter(is_wanted, CASES)), ids=str)


def has_token_head(case: Case) -> bool:
    return case.shared.get_output_embeddings() is not None


def caches(case: Case) -> bool:
    """Whether the class keeps keys and values for the next step: a decoder does."""
    return "past_key_values" in case.parameters and "past_key_values" in case.run(case.shared, use_cache=True)


def tensors_of(output: Any) -> dict[str, Tensor]:
    """Every tensor of an output, those in tuples by index; caches are left out."""
    found = {}
    for name, value in output.items():
        if isinstance(value, Tensor):
            found[name] = value
        elif isinstance(value, tuple) and all(isinstance(part, Tensor) for part in value):
            found |= {f"{name}.{index}": part for index, part in enumerate(value)}
    return found


def assert_same(one: Any, other: Any, atol: float = 0.0) -> None:
    first, second = tensors_of(one), tensors_of(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(
            second[name], value, atol=atol, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


def differs(one: Any, other: Any) -> bool:
    pairs = zip(tensors_of(one).values(), tensors_of(other).values(), strict=True)
    return any(first.shape != second.shape or not torch.equal(first, second) for first, second in pairs)


def storages(model: nn.Module) -> dict[int, list[str]]:
    """Address of each parameter's memory → the names it goes by."""
    found: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        found.setdefault(parameter.data_ptr(), []).append(name)
    return found


def load(case: Case, folder: Any, **options: Any) -> tuple[Any, Any]:
    return case.cls.from_pretrained(folder, output_loading_info=True, **{"attn_implementation": "eager"} | options)


def is_clean(report: Any) -> bool:
    return not (report["missing_keys"] or report["unexpected_keys"] or report["mismatched_keys"])


class TestRegistry:
    def test_every_family_is_here(self):
        assert set(TINY) == set(DRAWS) == set(registry.FOLDERS)
        assert len(CASES) > 60

    @pytest.mark.parametrize("model_type", sorted(registry.FOLDERS))
    def test_auto_names_lead_to_the_classes(self, model_type):
        config = TINY[model_type]()
        assert type(registry.config_class_for({"model_type": model_type})()) is type(config)
        for name in registry._family(model_type).pt:
            assert name in registry.AUTO_NAMES
            assert registry.model_class_for(name, config) in {case.cls for case in CASES}

    @every
    def test_the_class_says_what_it_is(self, case):
        assert case.cls.config_class is type(case.config())
        assert issubclass(case.cls, PreTrainedModel)
        assert case.cls.main_input_name in case.parameters
        assert case.cls.supports_gradient_checkpointing and case.cls._no_split_modules
        assert case.shared.framework == "pt" and case.shared.device.type == "cpu"
        names = {type(module).__name__ for module in case.shared.modules()}
        assert names & set(case.cls._no_split_modules)


class TestBuilding:
    @every
    def test_a_config_gives_a_model_that_takes_its_dummy_inputs(self, case):
        model = case.cls.from_config(case.config(), dtype="float32").eval()
        assert model.main_input_name in model.dummy_inputs
        with torch.no_grad():
            output = model(**model.dummy_inputs)
        assert tensors_of(output)
        assert all(torch.isfinite(value).all() for value in tensors_of(output).values())
        assert not model.config.pruned_heads

    @every
    def test_nothing_is_left_as_memory_was(self, case, monkeypatch):
        """A fresh model, and one of which nearly everything is missing, from memory that is full of NaN."""
        empty = torch.empty

        def poisoned(*args, **kwargs):
            made = empty(*args, **kwargs)
            return made.fill_(torch.nan) if made.is_floating_point() else made

        monkeypatch.setattr(torch, "empty", poisoned)
        torch.manual_seed(1)
        fresh = case.cls(case.config())
        name, value = one_of(case.shared)
        loaded = case.cls.from_pretrained(None, config=case.config(), state_dict={name: value})
        for model in (fresh, loaded):
            for key, tensor in model.state_dict().items():
                assert torch.isfinite(tensor).all(), key
        assert torch.equal(loaded.get_parameter(name), value)
        assert sorted(storages(loaded).values()) == sorted(storages(fresh).values())
        drawn = dict(loaded.named_parameters())
        for key, parameter in fresh.named_parameters():
            if key != name:
                assert_drawn_alike(key, parameter.detach(), drawn[key].detach())

    @those(lambda case: case.cls is not case.base)
    def test_no_word_of_what_nothing_initialises(self, case, caplog):
        name, value = one_of(case.shared)
        case.cls.from_pretrained(None, config=case.config(), state_dict={name: value})
        assert "nothing initialises it" not in caplog.text


def one_of(model: nn.Module) -> tuple[str, Tensor]:
    """A parameter that is tied to no other."""
    name = next(names[0] for names in storages(model).values() if len(names) == 1)
    return name, model.get_parameter(name).detach()


def assert_drawn_alike(name: str, one: Tensor, other: Tensor) -> None:
    """Constants are equal; what is drawn has the same spread and no mean to speak of."""
    if one.numel() < 2 or one.std() == 0:
        assert torch.equal(one, other), name
        return
    assert not torch.equal(one, other), f"{name} was not drawn"
    if one.numel() > 30:
        spread = max(one.std().item(), other.std().item())
        assert min(one.std().item(), other.std().item()) > 0.6 * spread, name
        assert abs(one.mean() - other.mean()) < 6 * spread / one.numel() ** 0.5, name


class TestSaving:
    @every
    def test_a_round_trip_changes_nothing(self, case, tmp_path):
        case.shared.save_pretrained(tmp_path / "one", durable=False)
        written = load_file(tmp_path / "one" / "model.safetensors")
        named = {at_rest for name, _ in case.shared.named_parameters() for at_rest in case.at_rest(name)}
        assert set(written) == named | persistent(case.shared)
        again, report = load(case, tmp_path / "one")
        assert is_clean(report) and not again.training
        first, second = case.shared.state_dict(), again.state_dict()
        assert first.keys() == second.keys()
        assert all(torch.equal(value, second[name]) for name, value in first.items())
        assert not any(tensor.is_meta for tensor in (*again.parameters(), *again.buffers()))
        assert again.config.to_dict() == case.shared.config.to_dict() | {"architectures": [case.cls.__name__]}
        assert_same(case.run(case.shared), case.run(again))
        again.save_pretrained(tmp_path / "two", durable=False)
        names = ("model.safetensors", "config.json")
        assert all((tmp_path / "one" / n).read_bytes() == (tmp_path / "two" / n).read_bytes() for n in names)

    @every
    def test_buffers_are_those_of_a_fresh_model(self, case, tmp_path):
        case.shared.save_pretrained(tmp_path, durable=False)
        again = load(case, tmp_path)[0]
        fresh = dict(case.cls(case.config()).named_buffers())
        found = dict(again.named_buffers())
        assert found.keys() == fresh.keys()
        assert all(
            torch.equal(value, found[name]) and value.dtype == found[name].dtype for name, value in fresh.items()
        )

    @those(lambda case: case.cls is not case.base)
    def test_base_and_head_read_each_other(self, case, tmp_path):
        head, body = case.shared, dict(case.base(case.config()).named_parameters())
        prefix = f"{head.base_model_prefix}."
        own = dict(head.named_parameters())
        places = {name: prefix + name if prefix + name in own else name for name in body}
        head.save_pretrained(tmp_path / "head", durable=False)
        base, report = case.base.from_pretrained(tmp_path / "head", output_loading_info=True)
        assert set(report["missing_keys"]) == {name for name, place in places.items() if place not in own}
        shared = {name: place for name, place in places.items() if place in own}
        assert len(shared) > 0.4 * len(body) and not report["mismatched_keys"]
        found = dict(base.named_parameters())
        assert all(torch.equal(found[name], own[place]) for name, place in shared.items())
        base.save_pretrained(tmp_path / "base", durable=False)
        again, report = load(case, tmp_path / "base")
        assert set(report["missing_keys"]) == own.keys() - set(places.values())
        found = dict(again.named_parameters())
        assert all(torch.equal(found[place], own[place]) for place in shared.values())
        for name in report["missing_keys"]:
            assert torch.isfinite(found[name]).all(), name

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
    @every
    def test_half_precision(self, case, dtype, tmp_path):
        case.shared.save_pretrained(tmp_path, durable=False)
        model, report = load(case, tmp_path, dtype=dtype)
        assert is_clean(report) and model.config.dtype == str(dtype).removeprefix("torch.")
        wide = case.cls._keep_in_fp32_modules or [] if dtype is torch.float16 else []
        expected = dict(case.shared.named_parameters())
        for name, parameter in model.named_parameters():
            kept = torch.float32 if set(name.split(".")) & set(wide) else dtype
            assert parameter.dtype == kept, name
            assert torch.equal(parameter, expected[name].to(kept)), name
        inputs = {name: v.to(dtype) if v.is_floating_point() else v for name, v in case.inputs.items()}
        with torch.no_grad():
            found = tensors_of(model(**inputs))
        for name, value in tensors_of(case.run(case.shared)).items():
            assert torch.isfinite(found[name]).all(), name
            assert found[name].shape == value.shape, name

    @every
    def test_threads_load_with_dtypes_of_their_own(self, case, tmp_path):
        case.shared.save_pretrained(tmp_path, durable=False)
        dtypes = [torch.float32, torch.bfloat16, torch.float64, torch.bfloat16]
        with ThreadPoolExecutor(len(dtypes)) as pool:
            models = list(pool.map(lambda dtype: load(case, tmp_path, dtype=dtype)[0], dtypes))
        assert [{p.dtype for p in model.parameters()} for model in models] == [{dtype} for dtype in dtypes]
        assert torch.get_default_dtype() == torch.float32
        expected = dict(case.shared.named_parameters())
        for model, dtype in zip(models, dtypes, strict=True):
            assert all(torch.equal(p, expected[name].to(dtype)) for name, p in model.named_parameters())


def persistent(model: nn.Module) -> set[str]:
    return model.state_dict().keys() - {name for name, _ in model.named_parameters(remove_duplicate=False)}


class TestTying:
    @pytest.mark.parametrize("tied", [True, False])
    @those(has_token_head)
    def test_embeddings_share_memory_if_the_config_says_so(self, case, tied, tmp_path):
        model = case.build(tie_word_embeddings=tied)
        model.save_pretrained(tmp_path, durable=False)
        loaded, report = load(case, tmp_path)
        assert is_clean(report)
        for each in (model, loaded, copy.deepcopy(model)):
            inputs, outputs = each.get_input_embeddings().weight, each.get_output_embeddings().weight
            assert (inputs is outputs) is tied
            assert (inputs.data_ptr() == outputs.data_ptr()) is tied
            names = storages(each)
            assert each.num_parameters() == sum(each.get_parameter(group[0]).numel() for group in names.values())
        written = load_file(tmp_path / "model.safetensors")
        groups = [[case.at_rest(name) for name in group] for group in storages(model).values()]
        assert all(sum(set(names) <= written.keys() for names in group) == 1 for group in groups)
        assert len(written) == sum(len(group[0]) for group in groups) + len(persistent(model))
        assert_same(case.run(model), case.run(loaded))

    @every
    def test_a_copy_shares_nothing_with_the_model(self, case):
        model = case.copy()
        assert_same(case.run(case.shared), case.run(model))
        one, other = storages(case.shared), storages(model)
        assert not one.keys() & other.keys()
        assert sorted(map(sorted, one.values())) == sorted(map(sorted, other.values()))
        assert model.config is not case.shared.config
        with torch.no_grad():
            next(model.parameters()).add_(1.0)
        assert case.shared.config.to_dict() == model.config.to_dict()
        assert not torch.equal(next(model.parameters()), next(case.shared.parameters()))


class TestOutputs:
    @every
    def test_a_tuple_has_what_the_output_has(self, case):
        asked = {"output_hidden_states": True, "output_attentions": True} | labels_for(case)
        output = case.run(case.shared, **asked)
        plain = case.run(case.shared, **asked, return_dict=False)
        assert type(plain) is tuple and len(plain) == len(output.to_tuple())
        for one, other in zip(plain, output.to_tuple(), strict=True):
            if isinstance(other, Tensor):
                assert torch.equal(one, other)
            elif isinstance(other, tuple):
                assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
            else:
                assert type(one) is type(other)  # a cache
        model = case.copy()
        model.config.return_dict = False
        assert type(case.run(model)) is tuple
        assert list(output.keys()) == [key for key in output if output[key] is not None]

    @every
    def test_states_and_weights_are_those_of_all_layers(self, case):
        output = case.run(case.shared, output_hidden_states=True, output_attentions=True)
        config, kinds = case.shared.config, [name for name in output if name.endswith(("hidden_states", "attentions"))]
        assert any(name.endswith("hidden_states") for name in kinds) and any("attentions" in name for name in kinds)
        for name in kinds:
            parts = output[name]
            if name.endswith("hidden_states"):
                assert len(parts) == case.layers + 1
                assert {part.shape for part in parts} == {parts[0].shape}
                assert parts[0].shape[-1] == config.hidden_size
                assert differs({name: parts[0]}, {name: parts[-1]})
            else:
                assert len(parts) == case.layers
                assert {part.shape[1] for part in parts} == {config.num_attention_heads}
                for part in parts:
                    torch.testing.assert_close(part.sum(-1), torch.ones(part.shape[:-1]))
        bare = case.run(case.shared)
        assert not set(kinds) & set(bare)
        assert_same(bare, {name: value for name, value in output.items() if name not in kinds}, atol=1e-5)

    @every
    def test_eager_and_sdpa_agree(self, case):
        model = case.copy()
        for masked in (False, True):
            inputs = case.inputs | (padding_of(case) if masked else {})
            found = []
            for name in ("eager", "sdpa"):
                model.config._attn_implementation = name
                with torch.no_grad():
                    found.append(model(**inputs))
            assert_same(*found, atol=2e-5)

    @every
    def test_a_row_is_the_same_alone_and_in_a_batch(self, case):
        whole = case.run(case.shared)
        for row in range(len(next(iter(case.inputs.values())))):
            with torch.no_grad():
                alone = case.shared(**{name: value[row : row + 1] for name, value in case.inputs.items()})
            for name, value in tensors_of(whole).items():
                if value.ndim:  # not what is counted over the batch
                    found = tensors_of(alone)[name][0]
                    torch.testing.assert_close(found, value[row], atol=1e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")

    @having("input_ids")
    def test_padding_on_the_right_changes_nothing_before_it(self, case):
        """Another row, longer, in the batch makes no difference to a shorter one."""
        ids, padding = case.inputs["input_ids"].clone(), case.shared.config.pad_token_id
        ids[0, ..., 3:] = padding
        if case.model_type == "t5":
            ids[0, ..., 2] = case.shared.config.eos_token_id
        mask = torch.ones_like(ids)
        mask[0, ..., 3:] = 0
        others = {name: value for name, value in case.inputs.items() if name not in ("input_ids", "attention_mask")}
        # The choice of GPT-2 is made at a place that the caller says.
        ends = {"mc_token_ids": torch.full(ids.shape[:-1], 2)} if "mc_token_ids" in case.parameters else {}
        with torch.no_grad():
            padded = case.shared(input_ids=ids, attention_mask=mask, **others, **ends)
            rest = {name: value[:1] for name, value in (others | ends).items()}
            alone = case.shared(input_ids=ids[:1, ..., :3], attention_mask=mask[:1, ..., :3], **rest)
        for name, value in tensors_of(alone).items():
            found = tensors_of(padded)[name][:1]
            for axis, size in enumerate(value.shape):
                found = found.narrow(axis, 0, size)
            torch.testing.assert_close(found, value, atol=1e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def padding_of(case: Case) -> dict[str, Tensor]:
    """A mask that takes the end of the first row away, for classes that take one."""
    if "attention_mask" not in case.parameters:
        return {}
    mask = torch.ones_like(case.inputs[case.cls.main_input_name], dtype=torch.int64)
    mask[0, ..., mask.shape[-1] * 3 // 5 :] = 0
    return {"attention_mask": mask}


class TestTraining:
    @every
    def test_gradients_reach_every_parameter(self, case):
        model = case.copy().train()
        model.config.layerdrop = 0.0  # a block that is left out gets no gradient
        torch.manual_seed(0)
        output = model(**case.inputs, **labels_for(case))
        loss = loss_of(output)
        assert loss.ndim == 0 and torch.isfinite(loss)
        loss.backward()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, f"no gradient reaches {name}"
                assert torch.isfinite(parameter.grad).all(), name
                # That of a bias may be zero: a softmax does not see what is added to all its inputs.
                assert parameter.grad.any() or parameter.ndim < 2, name

    @pytest.mark.parametrize("reentrant", [False, True])
    @every
    def test_checkpointing_gives_the_same_gradients(self, case, reentrant):
        model, found, calls = case.copy().train(), [], []
        labels = labels_for(case)
        for is_on in (False, True):
            if is_on:
                model.gradient_checkpointing_enable({"use_reentrant": reentrant})
                count_calls(model, calls)
            model.zero_grad()
            torch.manual_seed(4)
            loss_of(model(**case.inputs, **labels)).backward()
            found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
        assert len(calls) >= 1
        assert len(calls) % case.layers == 0 or "layerdrop" in vars(model.config)
        assert found[0].keys() == found[1].keys()
        for name, gradient in found[0].items():
            torch.testing.assert_close(
                found[1][name], gradient, atol=1e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
            )
        model.gradient_checkpointing_disable()
        assert not model.is_gradient_checkpointing

    @having("use_cache")
    def test_checkpointing_and_a_cache_exclude_each_other(self, case, caplog):
        model = case.copy().train()
        model.gradient_checkpointing_enable()
        for _ in range(2):
            assert "past_key_values" not in case.run(model, use_cache=True)
        keeps = "past_key_values" in case.run(case.shared, use_cache=True)
        assert caplog.text.count("no cache is returned") in ((1,) if keeps else (0, 1))
        assert ("past_key_values" in case.run(model.eval(), use_cache=True)) == keeps

    @every
    def test_frozen_embeddings_pass_gradients_on(self, case):
        model = case.copy()
        model.requires_grad_(False)
        assert not tensors_require_grad(model(**case.inputs))
        model.enable_input_require_grads()
        assert tensors_require_grad(model(**case.inputs))
        model.disable_input_require_grads()
        assert not tensors_require_grad(model(**case.inputs))


def loss_of(output: Any) -> Tensor:
    if "loss" in output or "mc_loss" in output:
        return sum(output[name] for name in ("loss", "mc_loss") if name in output)
    return sum(value.square().mean() for value in tensors_of(output).values())


def count_calls(model: nn.Module, calls: list[int]) -> None:
    for module in model.modules():
        if (function := module.__dict__.get("_gradient_checkpointing_func")) is not None:

            def counted(*args, function=function):
                calls.append(1)
                return function(*args)

            module._gradient_checkpointing_func = counted


def tensors_require_grad(output: Any) -> bool:
    return any(value.requires_grad for value in tensors_of(output).values())


class TestPruning:
    @every
    def test_a_save_and_a_load_keep_shapes_and_outputs(self, case, tmp_path):
        model, table = case.copy(), prunable(case)
        before = model.num_parameters()
        model.prune_heads(table)
        assert model.num_parameters() < before and model.config.pruned_heads == table
        output = case.run(model, output_attentions=True)
        assert differs(output, case.run(case.shared, output_attentions=True))
        model.save_pretrained(tmp_path, durable=False)
        again, report = load(case, tmp_path)
        assert is_clean(report)
        assert [p.shape for p in again.parameters()] == [p.shape for p in model.parameters()]
        assert_same(case.run(again, output_attentions=True), output)
        again.prune_heads(table)
        assert again.num_parameters() == model.num_parameters()
        assert case.cls(case.config(pruned_heads=table)).num_parameters() == model.num_parameters()

    @every
    def test_what_is_left_computes_what_it_did(self, case):
        """The same as a model in which the output layer does not look at these heads."""
        model, silent = case.copy(), case.copy()
        table = prunable(case)
        model.prune_heads(table)
        kept = [module for module in model.modules() if isinstance(module.__dict__.get("pruned_heads"), set)]
        whole = [module for module in silent.modules() if isinstance(module.__dict__.get("pruned_heads"), set)]
        for one, other in zip(kept, whole, strict=True):
            silence(silent, other, one.pruned_heads)
        assert sum(bool(module.pruned_heads) for module in kept) >= len(table)
        assert_same(case.run(model), case.run(silent), atol=1e-5)

    @pytest.mark.parametrize("pruned", [False, True])
    @those(caches)
    def test_a_text_in_two_steps(self, case, pruned):
        model = case.copy()
        if pruned:
            model.prune_heads({0: prunable(case)[0]})
        inputs = {name: value for name, value in case.inputs.items() if not name.endswith("mask")}
        name = "decoder_input_ids" if "decoder_input_ids" in inputs else "input_ids"
        if name == "input_ids" and "decoder_input_ids" in case.parameters:
            name, inputs["decoder_input_ids"] = "decoder_input_ids", inputs["input_ids"]
        with torch.no_grad():
            whole = model(**inputs)
            first = model(**inputs | {name: inputs[name][..., :3]}, use_cache=True)
            second = model(**inputs | {name: inputs[name][..., 3:]}, past_key_values=first.past_key_values)
        for key, value in tensors_of(second).items():
            expected = tensors_of(whole)[key]
            for axis, size in enumerate(value.shape):
                expected = expected.narrow(axis, expected.shape[axis] - size, size)
            torch.testing.assert_close(value, expected, atol=1e-5, rtol=0, msg=lambda m, n=key: f"{n}: {m}")

    @having("head_mask")
    def test_masks_of_ones_and_of_zeros(self, case):
        config = case.shared.config
        ones = torch.ones(case.layers, config.num_attention_heads)
        expected = case.run(case.shared)
        assert_same(case.run(case.shared, head_mask=ones), expected, atol=1e-6)
        assert_same(case.run(case.shared, head_mask=ones[0]), expected, atol=1e-6)
        without = case.run(case.shared, head_mask=ones * 0)
        assert differs(without, expected)
        table = prunable(case)
        for layer, gone in table.items():
            ones[layer, gone] = 0
        decoders = {"decoder_head_mask": ones} if "decoder_head_mask" in case.parameters else {}
        model = case.copy()
        model.prune_heads(table)
        assert_same(case.run(model), case.run(case.shared, head_mask=ones, **decoders), atol=1e-5)


def prunable(case: Case) -> dict[int, list[int]]:
    """Heads of the first and the last layer, as many as go together."""
    config = case.shared.config
    size = config.num_attention_heads // getattr(config, "num_key_value_heads", config.num_attention_heads)
    return {0: list(range(size)), case.layers - 1: list(range(size, 2 * size))}


OUTPUT_LAYERS = ("o_proj", "out_proj", "out_lin", "c_proj", "o", "dense")


def silence(model: nn.Module, attention: Any, gone: set[int]) -> None:
    """Zeros what the layer after `attention` makes of the heads `gone`."""
    name = next(name for name, module in model.named_modules() if module is attention)
    parent = model.get_submodule(name.rpartition(".")[0])
    inside = [module for key, module in attention.named_modules() if key in OUTPUT_LAYERS]
    beside = [module for key, module in parent.named_modules() if key == "output.dense"]
    (layer,) = inside or beside
    num_heads = model.config.num_attention_heads
    weight = layer.weight.data if isinstance(layer, nn.Linear) else layer.weight.data.T
    for head in gone:
        weight.unflatten(1, (num_heads, -1))[:, head] = 0


class TestResizing:
    @those(has_token_head)
    def test_tokens_of_a_head_that_is_tied_the_other_way(self, case, tmp_path):
        self.check_tokens(case, case.build(tie_word_embeddings=not case.shared.config.tie_word_embeddings), 5, tmp_path)

    @pytest.mark.parametrize("change", [5, -7])
    @every
    def test_tokens(self, case, change, tmp_path):
        self.check_tokens(case, case.copy(), change, tmp_path)

    def check_tokens(self, case, model, change, tmp_path):
        if not isinstance(embeddings_of(model), nn.Embedding):
            with pytest.raises(
                NotImplementedError, match=rf"{case.cls.__name__} reads \w+: it has no token embeddings"
            ):
                model.resize_token_embeddings(20)
            return
        old = model.config.vocab_size
        size = old + change
        kept = model.get_input_embeddings().weight[: min(size, old)].clone()
        head = model.get_output_embeddings()
        layer = model.resize_token_embeddings(size)
        assert layer is model.get_input_embeddings() and model.config.vocab_size == size
        assert layer.weight.shape[0] == layer.num_embeddings == size
        assert torch.equal(layer.weight[: min(size, old)], kept)
        for module in model.modules():
            if isinstance(module.__dict__.get("config"), type(model.config)):
                assert module.config.vocab_size == size
        if head is not None:
            assert model.get_output_embeddings() is head and size in head.weight.shape
            assert (head.weight is layer.weight) == bool(model.config.tie_word_embeddings)
        inputs = {name: v if v.is_floating_point() else v.clamp(max=size - 1) for name, v in case.inputs.items()}
        with torch.no_grad():
            output = model(**inputs)
        if head is not None:
            logits = output["logits" if "logits" in output else "prediction_logits"]
            assert logits.shape[-1] == size
        model.save_pretrained(tmp_path, durable=False)
        again, report = load(case, tmp_path)
        assert is_clean(report) and again.config.vocab_size == size
        with torch.no_grad():
            assert_same(again(**inputs), output)

    @pytest.mark.parametrize("change", [3, -4])
    @every
    def test_positions(self, case, change, tmp_path):
        model = case.copy()
        if model.base_model._position_embeddings is None:
            with pytest.raises(
                NotImplementedError, match=f"{type(model).__name__} has|{type(model.base_model).__name__}"
            ):
                model.resize_position_embeddings(20)
            with pytest.raises(NotImplementedError):
                model.get_position_embeddings()
            return
        old = model.config.max_position_embeddings
        model.resize_position_embeddings(old + change)
        assert model.config.max_position_embeddings == model.get_position_embeddings().num_embeddings == old + change
        assert_same(case.run(model), case.run(case.shared))
        model.save_pretrained(tmp_path, durable=False)
        again, report = load(case, tmp_path)
        assert is_clean(report)
        assert_same(case.run(again), case.run(model))


def embeddings_of(model: Any) -> Any:
    try:
        return model.get_input_embeddings()
    except NotImplementedError:
        return None


def test_parameters_are_counted_once():
    for case, exclude in itertools.product(CASES, (False, True)):
        model = case.shared
        left_out = {id(module.weight) for module in model.modules() if exclude and isinstance(module, nn.Embedding)}
        expected = sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in left_out)
        assert model.num_parameters(exclude_embeddings=exclude) == expected, str(case)
