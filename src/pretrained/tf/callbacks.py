"""Training that goes on from where it was: checkpoints in a folder or a repository, which nobody has to trust.

A checkpoint is `checkpoint/model.weights.h5`, Keras's own file with the state of the optimizer, and
`checkpoint/state.json` with the number of epochs. Neither can run code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from .._types import PathLike
from ..checkpoint.commit import Stage
from ..checkpoint.files import read_json
from ..checkpoint.find import settle
from ..errors import OptionError, SourceError
from ..hub.push import push_files
from ..hub.ref import resolve
from ..options import SourceOptions
from ..push_options import push_options
from . import saving

__all__ = ["PushToHubCallback", "restore", "save_state"]

_WEIGHTS, _STATE = "checkpoint/model.weights.h5", "checkpoint/state.json"


class PushToHubCallback(keras.callbacks.Callback):
    """Saves a model and the state of its training into a folder after each epoch, and pushes it when that is asked for.

    Args:
        output_dir: the folder.
        save_strategy: "epoch", or "no" for the end of training alone.
        hub_model_id: the repository; None pushes nothing.
        hub_token: in place of the stored one.
        checkpoint: whether the state of the optimizer is saved, for `load_repo_checkpoint`.
        keywords: further ones of `push_to_hub`.
    """

    def __init__(
        self,
        output_dir: PathLike,
        save_strategy: str = "epoch",
        hub_model_id: str | None = None,
        hub_token: str | bool | None = None,
        checkpoint: bool = True,
        **keywords: Any,
    ) -> None:
        super().__init__()
        if save_strategy not in ("epoch", "no"):
            raise OptionError(f"save_strategy is 'epoch' or 'no', not {save_strategy!r:.60}", key="save_strategy")
        self.output_dir, self.save_strategy, self.checkpoint = Path(output_dir), save_strategy, checkpoint
        self.hub_model_id, self.hub_token, self.keywords = hub_model_id, hub_token, keywords
        self._epochs = 0
        self._files: list[str] = []  # of the last save

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Saves, where every epoch is saved."""
        self._epochs = epoch + 1
        if self.save_strategy == "epoch":
            self._save()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Saves what no epoch saved, and pushes."""
        if self.save_strategy == "no":
            self._save()
        if self.hub_model_id is not None:
            options = push_options({"repo_id": self.hub_model_id, "token": self.hub_token, **self.keywords})
            push_files(self.output_dir, self._files, options, saving.card_facts(self.model))

    def _save(self) -> None:
        report = saving.save_model(self.model, self.output_dir, saving.options_for("5GB", True, None, {}))
        self._files = list(report.files) if report is not None else []
        if self.checkpoint:
            save_state(self.model, self.output_dir, self._epochs)
            self._files += [_WEIGHTS, _STATE]


def save_state(model: Any, folder: PathLike, epoch: int) -> None:
    """Writes the state of a training into a folder: variables, optimizer, and how many epochs there were.

    Raises:
        SaveError: nothing was written.
    """
    with Stage(Path(folder) / "checkpoint") as stage:
        model.save_weights(stage.path(Path(_WEIGHTS).name))
        stage.path(Path(_STATE).name).write_text(json.dumps({"epoch": epoch}), encoding="utf-8")
        stage.commit()


def restore(model: Any, ref: PathLike, **keywords: Any) -> dict[str, Any]:
    """Gives a compiled model the state that a folder or a repository holds; returns `{"epoch": …}`.

    Raises:
        SourceError: there is no such state, or it is damaged. OptionError: the model is not compiled.
    """
    if getattr(model, "optimizer", None) is None:
        raise OptionError("compile the model first: a checkpoint holds the state of its optimizer", key="optimizer")
    snapshot = settle(resolve(ref, SourceOptions(**keywords)))
    reason = f"{ref} holds no {_STATE} and {_WEIGHTS}, as PushToHubCallback writes them after an epoch"
    try:
        state, weights = snapshot.path(_STATE), snapshot.path(_WEIGHTS)
    except SourceError as error:
        raise SourceError(reason, path=str(ref)) from error
    if not (state.is_file() and weights.is_file()):
        raise SourceError(reason, path=str(ref))
    epoch = read_json(state, error=SourceError).get("epoch")
    if not isinstance(epoch, int):
        raise SourceError(f'{state}: "epoch" is no number', path=str(state), key="epoch")
    model.optimizer.build(model.trainable_variables)
    model.load_weights(weights)
    return {"epoch": epoch}
