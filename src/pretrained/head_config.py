"""What a config says of the heads of models, whatever the framework."""

from __future__ import annotations

from typing import Any

from .errors import ConfigError

__all__ = ["check_two_labels", "classifier_dropout"]


def classifier_dropout(config: Any) -> float:
    """The rate before a classification head: `config.classifier_dropout`, else that of the hidden states."""
    rate = config.classifier_dropout
    found: float = config.hidden_dropout_prob if rate is None else rate
    return found


def check_two_labels(config: Any) -> None:
    """Raises ConfigError unless there are two labels: the start and the end of an answer."""
    if config.num_labels != 2:
        raise ConfigError(
            f"question answering has two labels, the start and the end of an answer; num_labels={config.num_labels}",
            key="num_labels",
            value=config.num_labels,
        )
