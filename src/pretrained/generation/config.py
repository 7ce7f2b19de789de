"""GenerationConfig: the settings of generation, as one mutable object that is a JSON file on disk.

A setting that was never given has the default of its class and is not written. Three of them are looked at in turn:
the caller's, the model's own, and the defaults (`filled_from`).
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

from .._types import PathLike, Snapshot
from ..checkpoint.files import read_json, safe_join
from ..checkpoint.find import settle
from ..configuration_fields import Field, fields_of, from_json_value
from ..errors import ConfigError, OptionError, SourceError
from ..hub.push import PushToHubMixin
from ..hub.ref import resolve
from ..hub.upload import Upload
from ..options import split_source_options
from ..saving_texts import save_texts
from .fields import check_range, check_together, check_type, json_of, plain, unknown_setting

__all__ = ["GENERATION_CONFIG_NAME", "GenerationConfig", "GenerationMode", "read_generation_config"]

GENERATION_CONFIG_NAME = "generation_config.json"

logger = logging.getLogger(__name__)

# What is passed to generate() beside the settings, and is no setting.
_ARGUMENTS = (
    *("logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "assistant_model", "streamer"),
    *("negative_prompt_ids", "negative_prompt_attention_mask", "synced_gpus"),
)
# Notes that a file carries along.
_NOTES = frozenset({"transformers_version", "_from_model_config", "_commit_hash"})
_OUTPUTS = ("output_attentions", "output_hidden_states", "output_scores", "output_logits")


class GenerationMode(str, Enum):
    """The ways to decode."""

    GREEDY_SEARCH = "greedy_search"
    SAMPLE = "sample"
    BEAM_SEARCH = "beam_search"
    BEAM_SAMPLE = "beam_sample"
    GROUP_BEAM_SEARCH = "group_beam_search"
    CONTRASTIVE_SEARCH = "contrastive_search"
    ASSISTED_GENERATION = "assisted_generation"
    DOLA_GENERATION = "dola_generation"
    CONSTRAINED_BEAM_SEARCH = "constrained_beam_search"


class GenerationConfig(PushToHubMixin):
    """Settings of generation as attributes; docs/generation.md says what each does.

    Args:
        kwargs: settings by name.

    Raises:
        OptionError: a name that is no setting; names the nearest. ConfigError: an impossible value.
    """

    # Length
    max_length: int = 20
    max_new_tokens: int | None = None
    min_length: int = 0
    min_new_tokens: int | None = None
    early_stopping: bool | str = False
    max_time: float | None = None
    stop_strings: str | list[str] | None = None
    # Strategy
    do_sample: bool = False
    num_beams: int = 1
    num_beam_groups: int = 1
    diversity_penalty: float = 0.0
    penalty_alpha: float | None = None
    dola_layers: str | list[int] | None = None
    use_mtp: bool | None = None
    low_memory: bool | None = None
    constraints: Any = None
    force_words_ids: list[Any] | None = None
    # Cache
    use_cache: bool = True
    cache_implementation: str | None = None
    cache_config: dict[str, Any] | None = None
    max_cache_len: int | None = None
    return_legacy_cache: bool | None = None
    prefill_chunk_size: int | None = None
    # Logits
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    min_p: float | None = None
    top_h: float | None = None
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0
    eta_cutoff: float = 0.0
    repetition_penalty: float = 1.0
    encoder_repetition_penalty: float = 1.0
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    bad_words_ids: list[list[int]] | None = None
    renormalize_logits: bool = False
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | list[int] | None = None
    remove_invalid_values: bool = False
    exponential_decay_length_penalty: list[Any] | None = None
    suppress_tokens: list[int] | None = None
    begin_suppress_tokens: list[int] | None = None
    sequence_bias: dict[Any, float] | list[Any] | None = None
    token_healing: bool = False
    guidance_scale: float | None = None
    watermarking_config: Any = None
    # Outputs
    num_return_sequences: int = 1
    output_attentions: bool = False
    output_hidden_states: bool = False
    output_scores: bool = False
    output_logits: bool | None = None
    return_dict_in_generate: bool = False
    # Special tokens
    pad_token_id: int | None = None
    bos_token_id: int | list[int] | None = None
    eos_token_id: int | list[int] | None = None
    # Encoder and decoder
    encoder_no_repeat_ngram_size: int = 0
    decoder_start_token_id: int | list[int] | None = None
    # Assistants
    is_assistant: bool = False
    num_assistant_tokens: int = 20
    num_assistant_tokens_schedule: str = "constant"
    assistant_confidence_threshold: float = 0.4
    prompt_lookup_num_tokens: int | None = None
    max_matching_ngram_size: int | None = None
    assistant_early_exit: int | None = None
    assistant_lookbehind: int = 10
    target_lookbehind: int = 10
    assistant_ensemble_weight: float | None = None
    speculation_type: str | None = None
    # Compilation
    compile_config: Any = None
    disable_compile: bool = False

    extra_output_flags: ClassVar[tuple[str, ...]] = _OUTPUTS

    def __init__(self, **kwargs: Any) -> None:
        known = fields_of(type(self))
        for name in kwargs:
            if name in _ARGUMENTS:
                raise OptionError(f"{name} is an argument of generate(), not a setting", key=name)
            if name not in known and name not in _NOTES:
                raise unknown_setting(name, known)
        self._set(kwargs)
        self.validate()

    def _set(self, values: Mapping[str, Any]) -> None:
        """Values as attributes, of the right type; what no field declares is kept as it is."""
        known = fields_of(type(self))
        for name, value in values.items():
            if name in known:
                value = plain(name, value)
                check_type(name, value, known[name])
            elif callable(getattr(type(self), name, None)) or name.startswith("__") or name in _ARGUMENTS:
                raise ConfigError(f"generation setting {name!r} would replace something of that name", key=name)
            self.__dict__[name] = value

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], **kwargs: Any) -> Any:
        """The settings of a generation_config.json; keywords override. Keys that nobody knows are kept.

        With `return_unused_kwargs=True` returns (config, keywords that are no settings).

        Raises:
            ConfigError: a value has the wrong type. OptionError: a keyword that is no setting.
        """
        config = cls()
        config._set({name: from_json_value(value) for name, value in config_dict.items()})
        unused = config.update(**{k: v for k, v in kwargs.items() if k != "return_unused_kwargs"})
        if kwargs.get("return_unused_kwargs"):
            return config, unused
        if unused:
            raise unknown_setting(min(unused), vars(config).keys() | fields_of(cls).keys())
        return config

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name: PathLike, config_file_name: str | None = None, **kwargs: Any
    ) -> Any:
        """The settings of a folder or hub repository; keywords as for `from_dict`.

        Raises:
            SourceError: there is no generation_config.json. ConfigError: it is damaged.
        """
        source, rest = split_source_options(kwargs)
        snapshot = settle(resolve(pretrained_model_name, source))
        name = config_file_name or GENERATION_CONFIG_NAME
        if (path := _path_in(snapshot, name)) is None:
            raise SourceError(f"no {name} in {snapshot.name}", path=snapshot.name)
        return _read(cls, path, rest)

    @classmethod
    def from_model_config(cls, model_config: Any) -> Any:
        """The settings that a config.json brings along, as releases before 4.26 wrote them; a config or its dict."""
        found: dict[str, Any] = {}
        for part in _parts_of(model_config):
            for name, field in fields_of(cls).items():
                value = part.get(name)
                if name not in found and value is not None and value != field.default:
                    found[name] = value
        if any(found.get(name) for name in _OUTPUTS):
            found["return_dict_in_generate"] = True
        config = cls()
        config._set({**found, "_from_model_config": True})
        return config

    def update(self, defaults_only: bool = False, allow_custom_entries: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Sets the settings among the keywords and returns the others.

        Args:
            defaults_only: leaves alone what was given before.
            allow_custom_entries: whether a name that is no setting becomes one of this object.
            kwargs: settings by name.

        Raises:
            ConfigError: an impossible value; then nothing is set.
        """
        known = fields_of(type(self)).keys() | vars(self).keys()
        mine = {name: value for name, value in kwargs.items() if name in known or allow_custom_entries}
        if defaults_only:
            mine = {name: value for name, value in mine.items() if vars(self).get(name) is None}
        if mine:
            trial = copy.copy(self)
            trial._set(mine)
            trial.validate(*mine)
            vars(self).update(vars(trial))
        return {name: value for name, value in kwargs.items() if name not in mine}

    def filled_from(self, *others: Any) -> Any:
        """A copy in which what is not given here comes from the first of `others` that gives it."""
        merged = copy.copy(self)
        for other in others:
            for name, value in vars(other).items():
                if value is not None and name not in _NOTES and vars(merged).get(name) is None:
                    vars(merged)[name] = value
        for name in [name for name, value in vars(merged).items() if value is None and name in _FIELDS]:
            del vars(merged)[name]
        return merged

    def validate(self, *names: str, strict: bool = False) -> None:
        """Checks the types and ranges of these settings, or of all, and what goes together.

        Args:
            names: settings to look at.
            strict: also refuses what has no effect beside the rest, such as a temperature without sampling.

        Raises:
            ConfigError: names the setting that is impossible.
        """
        table = fields_of(type(self))
        for name in names or tuple(vars(self)):
            if name in table:
                check_type(name, vars(self).get(name), table[name])
                check_range(name, vars(self).get(name))
        check_together(self)
        if strict and (idle := self.idle_settings()):
            raise ConfigError(f"generation setting {idle[0]!r} has no effect beside the others", key=idle[0])

    def idle_settings(self) -> list[str]:
        """Names of settings that were given and have no effect beside the others."""
        idle: list[str] = []
        if not self.do_sample:
            idle += ["temperature", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"]
            idle += [] if self.penalty_alpha else ["top_k"]
        if (self.num_beams or 1) == 1:
            idle += ["early_stopping", "length_penalty", "num_beam_groups", "diversity_penalty"]
        if self.use_cache is False:
            idle += ["cache_implementation", "cache_config"]
        if not self.return_dict_in_generate:
            idle += _OUTPUTS
        defaults = fields_of(type(self))
        return [name for name in idle if vars(self).get(name) not in (None, False, defaults[name].default)]

    def get_generation_mode(self, assistant_model: Any = None) -> GenerationMode:
        """The way to decode that these settings ask for."""
        if self.constraints is not None or self.force_words_ids is not None:
            return GenerationMode.CONSTRAINED_BEAM_SEARCH
        if (self.num_beams or 1) > 1:
            if (self.num_beam_groups or 1) > 1:
                return GenerationMode.GROUP_BEAM_SEARCH
            return GenerationMode.BEAM_SAMPLE if self.do_sample else GenerationMode.BEAM_SEARCH
        if assistant_model is not None or self.prompt_lookup_num_tokens or self.assistant_early_exit or self.use_mtp:
            return GenerationMode.ASSISTED_GENERATION
        if self.dola_layers is not None:
            return GenerationMode.DOLA_GENERATION
        if self.do_sample:
            return GenerationMode.SAMPLE
        is_contrastive = (self.penalty_alpha or 0) > 0 and (self.top_k or 0) > 1
        return GenerationMode.CONTRASTIVE_SEARCH if is_contrastive else GenerationMode.GREEDY_SEARCH

    # JSON

    def to_dict(self) -> dict[str, Any]:
        """Every setting, JSON-ready: what was given, and the defaults of the rest."""
        values = {name: field.default for name, field in fields_of(type(self)).items()} | vars(self)
        return {name: json_of(name, value) for name, value in values.items()}

    def to_diff_dict(self) -> dict[str, Any]:
        """What was given, JSON-ready; what generation_config.json holds."""
        given = {n: v for n, v in vars(self).items() if not (v is None and n in _FIELDS) and n != "compile_config"}
        return {name: json_of(name, value) for name, value in given.items()}

    def to_json_string(self, use_diff: bool = True) -> str:
        """The text of generation_config.json."""
        return json.dumps(self.to_diff_dict() if use_diff else self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path: PathLike, use_diff: bool = True) -> None:
        """Writes the settings to one file."""
        Path(json_file_path).write_text(self.to_json_string(use_diff), encoding="utf-8")

    def save_pretrained(
        self, save_directory: PathLike, config_file_name: str | None = None, push_to_hub: bool = False, **kwargs: Any
    ) -> None:
        """Writes generation_config.json into the folder, all or nothing; with `push_to_hub=True` pushes it too.

        Raises:
            ConfigError: an impossible value. SaveError: nothing was written. HubError: the push was refused.
        """
        self.validate()
        name = config_file_name or GENERATION_CONFIG_NAME
        save_texts(self, save_directory, {name: self.to_json_string()}, {**kwargs, "push_to_hub": push_to_hub})

    def _push_files(self, upload: Upload, saved: dict[str, Any]) -> None:
        self.validate()
        upload.add_texts({GENERATION_CONFIG_NAME: self.to_json_string()})

    def _save_to(self, folder: Path, saved: dict[str, Any]) -> None:
        self.save_pretrained(folder)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GenerationConfig):
            return False
        mine, theirs = ({k: v for k, v in c.to_dict().items() if k not in _NOTES} for c in (self, other))
        return mine == theirs

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"GenerationConfig {self.to_json_string()}"


_FIELDS: Mapping[str, Field] = fields_of(GenerationConfig)


def read_generation_config(snapshot: Snapshot) -> GenerationConfig | None:
    """The snapshot's generation settings; None if it has none. Raises ConfigError when the file is damaged."""
    path = _path_in(snapshot, GENERATION_CONFIG_NAME)
    return None if path is None else _read(GenerationConfig, path, {})


def _path_in(snapshot: Snapshot, name: str) -> Path | None:
    if name not in snapshot.names():
        return None
    path: Path = snapshot.path(name)
    return safe_join(snapshot.folder, name) if snapshot.folder is not None and path == snapshot.folder / name else path


def _read(cls: type[GenerationConfig], path: Path, keywords: Mapping[str, Any]) -> Any:
    values = read_json(path, error=ConfigError)
    try:
        return cls.from_dict(values, **keywords)
    except ConfigError as error:
        raise error.at(path) from None


def _parts_of(model_config: Any) -> list[Mapping[str, Any]]:
    """The content of a config, and of the part of it that decodes."""
    outer = dict(model_config) if isinstance(model_config, Mapping) else vars(model_config)
    inner: Any = next((outer[n] for n in ("decoder", "generator", "text_config") if outer.get(n) is not None), {})
    return [outer, inner if isinstance(inner, Mapping) else vars(inner)]
