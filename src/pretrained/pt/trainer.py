"""Checkpoints that transformers' Trainer writes and resumes from, as its own model classes have them."""

from __future__ import annotations

from typing import Any

import torch

from .any_module import load_into
from .modeling import PreTrainedModel

__all__ = ["TrainerMixin"]


class TrainerMixin:
    """Goes before Trainer among the bases of a class: `class MyTrainer(TrainerMixin, Trainer): ...`.

    Of a model whose class is not its own the Trainer writes bare tensors: no config, and not at all where weights are
    tied. With this class before it each checkpoint is one that `from_pretrained` loads. Models of other libraries,
    adapters of peft, and what FSDP and DeepSpeed split are left to the Trainer.
    """

    args: Any
    accelerator: Any
    model: Any
    state: Any

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Writes the model as `save_pretrained` does, its tokenizer and the arguments of the training."""
        model = self._own_model(self.model)
        if model is None:
            super()._save(output_dir, state_dict)  # type: ignore[misc]
            return
        if not self.args.should_save:
            return
        folder = self.args.output_dir if output_dir is None else output_dir
        model.save_pretrained(folder, state_dict=state_dict)
        tokenizer = getattr(self, "processing_class", None)
        if tokenizer is None:
            tokenizer = getattr(getattr(self, "data_collator", None), "tokenizer", None)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        torch.save(self.args, f"{folder}/training_args.bin")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Fills the model with the weights of a checkpoint, whatever names and shards they have there.

        Raises:
            SourceError, WeightsFormatError, MismatchError: as `from_pretrained`.
        """
        own = self._own_model(self.model if model is None else model)
        if own is None or self._is_split():
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
        else:
            load_into(own, resume_from_checkpoint, mmap=False)  # the next step writes to all of it

    def _load_best_model(self) -> None:
        """Fills the model with the weights of the best checkpoint."""
        own = self._own_model(self.model)
        if own is None or self._is_split():
            super()._load_best_model()  # type: ignore[misc]
        else:
            load_into(own, self.state.best_model_checkpoint, mmap=False)

    def _own_model(self, model: Any) -> PreTrainedModel | None:
        """The model without the wrappers of data parallelism and compilation; None if it is not one of ours."""
        inner = self.accelerator.unwrap_model(model, keep_torch_compile=False)
        return inner if isinstance(inner, PreTrainedModel) else None

    def _is_split(self) -> bool:
        return bool(getattr(self, "is_fsdp_enabled", False) or getattr(self, "is_deepspeed_enabled", False))
