"""transformers' Trainer: its checkpoints load here, and training goes on from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import KINDS, Rows, fresh, same, values_of
from transformers import Trainer, TrainingArguments

from pretrained import AutoModelForCausalLM, AutoModelForSequenceClassification, TrainerMixin
from pretrained.errors import SourceError


class OurTrainer(TrainerMixin, Trainer):
    """As our documentation says to make one."""


def trainer_of(kind: str, folder: Path, cls: type[Trainer] = OurTrainer, model: Any = None, **changes: Any) -> Trainer:
    settings = {
        "max_steps": 3,
        "per_device_train_batch_size": 4,
        "save_steps": 2,
        "logging_steps": 1,
        "learning_rate": 1e-2,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
    }
    arguments = TrainingArguments(str(folder), **settings | changes)
    rows = Rows(kind)
    return cls(model or fresh(kind), arguments, train_dataset=rows, eval_dataset=rows)


def test_three_steps_and_a_checkpoint(kind: str, tmp_path: Path) -> None:
    trainer = trainer_of(kind, tmp_path, eval_strategy="steps", eval_steps=3)
    before = values_of(trainer.model)
    assert trainer.train().global_step == 3
    assert not same(values_of(trainer.model), before)
    assert {"eval_loss"} <= {key for entry in trainer.state.log_history for key in entry}
    again, report = KINDS[kind][0].from_pretrained(tmp_path / "checkpoint-3", output_loading_info=True)
    assert same(values_of(again), values_of(trainer.model))
    assert report["missing_keys"] == report["unexpected_keys"] == []
    assert type(again) is type(trainer.model)
    trainer.save_model(tmp_path / "final")
    assert {"config.json", "model.safetensors", "training_args.bin"} <= {p.name for p in (tmp_path / "final").iterdir()}
    assert same(values_of(KINDS[kind][0].from_pretrained(tmp_path / "final")), values_of(again))


def test_training_goes_on_from_a_checkpoint(kind: str, tmp_path: Path) -> None:
    straight = trainer_of(kind, tmp_path / "straight")
    straight.train()
    resumed = trainer_of(kind, tmp_path / "resumed", model=fresh(kind, seed=5))
    resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-2"))
    assert resumed.state.global_step == 3
    expected = values_of(straight.model)
    for name, tensor in values_of(resumed.model).items():
        torch.testing.assert_close(tensor, expected[name], msg=name)


def test_the_best_checkpoint_comes_back(tmp_path: Path) -> None:
    trainer = trainer_of(
        "tied", tmp_path, eval_strategy="steps", save_strategy="steps", eval_steps=1, save_steps=1,
        load_best_model_at_end=True, metric_for_best_model="loss", greater_is_better=True,
    )  # fmt: skip
    trainer.train()
    best = Path(trainer.state.best_model_checkpoint)
    assert best.name == "checkpoint-1"
    assert same(values_of(trainer.model), values_of(KINDS["tied"][0].from_pretrained(best)))
    assert trainer.model.cls.predictions.decoder.weight is trainer.model.get_input_embeddings().weight


def test_names_on_disk_that_are_not_the_models(reference: Path, tmp_path: Path) -> None:
    """A checkpoint of the base model alone: saves keep its names, and resuming finds them."""
    source = reference / "bert" / "torch-base-only"
    model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=2)
    trainer = trainer_of("classes", tmp_path, model=model)
    trainer.train()
    other = AutoModelForSequenceClassification.from_pretrained(source, num_labels=2)
    resumed = trainer_of("classes", tmp_path, model=other)
    resumed._load_from_checkpoint(str(tmp_path / "checkpoint-3"))
    assert same(values_of(resumed.model), values_of(trainer.model))


def test_the_stock_trainer_saves_what_is_not_tied(tmp_path: Path) -> None:
    trainer = trainer_of("classes", tmp_path, Trainer)
    trainer.train()
    with pytest.raises(SourceError, match=r"no config\.json beside the weights"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "checkpoint-3")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "checkpoint-3", config=trainer.model.config)
    assert same(values_of(again), values_of(trainer.model))


def test_gradients_are_added_up_by_tokens(tmp_path: Path) -> None:
    """Rows of very different lengths: two calls of two rows give the loss of one call of four, to rounding."""

    class Uneven(Rows):
        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            row = super().__getitem__(index)
            return row | {"labels": torch.where(torch.arange(7) < 2 + 5 * (index % 4 == 0), row["labels"], -100)}

    found = []
    for size, steps in ((4, 1), (1, 4)):
        trainer = trainer_of(
            "decoder", tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=steps, max_steps=1,
            train_sampling_strategy="sequential",
        )  # fmt: skip
        trainer.train_dataset = Uneven("decoder")
        trainer.train()
        found.append(next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry))
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    ids = torch.stack([Uneven("decoder")[i]["input_ids"] for i in range(4)])
    labels = torch.stack([Uneven("decoder")[i]["labels"] for i in range(4)])
    assert fresh("decoder").eval()(input_ids=ids, labels=labels).loss.item() == pytest.approx(found[0], rel=1e-5)


def test_transformers_itself_reads_a_checkpoint(tmp_path: Path) -> None:
    """The same folder, read by the class that people know."""
    from transformers import LlamaForCausalLM as TheirLlama

    trainer = trainer_of("decoder", tmp_path)
    trainer.train()
    assert json.loads((tmp_path / "checkpoint-3" / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    ids = Rows("decoder").ids[:3]
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-3")
    theirs = TheirLlama.from_pretrained(tmp_path / "checkpoint-3").eval()
    with torch.no_grad():
        torch.testing.assert_close(ours(input_ids=ids).logits, theirs(input_ids=ids).logits)
