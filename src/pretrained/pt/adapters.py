"""PeftAdapterMixin: adapters of a model, small layers of the peft library around layers that are frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .._types import PathLike
from ..report import LoadReport
from . import adapter_files, adapter_layers
from .adapter_layers import DEFAULT

__all__ = ["PeftAdapterMixin"]


class PeftAdapterMixin:
    """Adapters of a model: adding, loading, choosing, taking away. All need the peft library."""

    _hf_peft_config_loaded: bool = False
    peft_config: dict[str, Any]  # by adapter; only while there is one

    def add_adapter(self, adapter_config: Any, adapter_name: str | None = None) -> None:
        """Puts fresh layers of an adapter in and makes it the active one; all other parameters are frozen.

        Args:
            adapter_config: a config of peft, such as LoraConfig; it is copied.
            adapter_name: "default" if not given.

        Raises:
            InvalidOptionError: that name is taken, or the adapter fits no layer. OptionError: no config of peft.
            MissingFrameworkError: peft is not installed.
        """
        adapter_layers.add(self, adapter_config, adapter_name or DEFAULT)

    def load_adapter(
        self,
        peft_model_id: PathLike | None = None,
        adapter_name: str | None = None,
        revision: str | None = None,
        token: Any = None,
        peft_config: Any = None,
        adapter_state_dict: Mapping[str, Tensor] | None = None,
        is_trainable: bool = False,
        adapter_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> LoadReport:
        """Puts a saved adapter on the model and makes it the active one. If it fails, the model is as it was.

        Args:
            peft_model_id: a folder or hub name with adapter_config.json and adapter_model.safetensors (or .bin).
            adapter_name: "default" if not given.
            revision, token: where to look; see also `kwargs`.
            peft_config: in place of the place's own config: one of peft, or a dict.
            adapter_state_dict: names to tensors, in place of files; goes with `peft_config`.
            is_trainable: whether its parameters require a gradient.
            adapter_kwargs: as `kwargs`: `subfolder`, `cache_dir`, `local_files_only`, `force_download`, `endpoint`.
            kwargs: these, `use_safetensors`, and `strict`: missing and unexpected tensors are errors.

        Raises:
            SourceError, ConfigError, WeightsFormatError: nothing loadable there. MismatchError: it is for another
                model. InvalidOptionError: the name is taken. MissingFrameworkError: peft is not installed.
        """
        place = {"revision": revision, "token": token, "adapter_kwargs": adapter_kwargs, **kwargs}
        given = (peft_model_id, peft_config, adapter_state_dict)
        return adapter_files.load(self, adapter_name or DEFAULT, given, place, is_trainable=is_trainable)

    def set_adapter(self, adapter_name: str | list[str]) -> None:
        """Makes one adapter, or several together, the active ones; they are trainable, the others are not.

        Raises:
            InvalidOptionError: there is none of that name.
        """
        adapter_layers.activate(self, adapter_name)

    def active_adapters(self) -> list[str]:
        """Names of the active adapters. Raises InvalidOptionError if there is no adapter at all."""
        return adapter_layers.active(self)

    def disable_adapters(self) -> None:
        """Makes the model compute what it does without adapters. Raises InvalidOptionError if there are none."""
        adapter_layers.switch(self, is_on=False)

    def enable_adapters(self) -> None:
        """Takes `disable_adapters` back. Raises InvalidOptionError if there are no adapters."""
        adapter_layers.switch(self, is_on=True)

    def get_adapter_state_dict(
        self, adapter_name: str | None = None, state_dict: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The tensors of one adapter, the active one if none is named; names without that of the adapter.

        Args:
            adapter_name: which.
            state_dict: where to take them from, in place of the model's own.

        Raises:
            InvalidOptionError: there is none of that name.
        """
        return adapter_layers.state_of_adapter(self, adapter_name, state_dict)

    def delete_adapter(self, adapter_names: str | list[str]) -> None:
        """Takes adapters away; with the last one the layers are the model's own again.

        Raises:
            InvalidOptionError: there is none of that name.
        """
        adapter_layers.delete(self, [adapter_names] if isinstance(adapter_names, str) else list(adapter_names))
