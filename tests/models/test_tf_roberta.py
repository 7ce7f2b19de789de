"""RoBERTa, XLM-RoBERTa and DistilBERT in TensorFlow: every head against torch, and what both their files hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tf_cases import check_case, check_round_trip, find_tf
from tiny import REFERENCE, TINY

import pretrained
from pretrained.errors import ConfigError

CASES = [
    (family, case)
    for family in ("roberta", "distilbert")
    for case, spec in sorted(json.loads((REFERENCE / f"{family}_heads/cases.json").read_text())["cases"].items())
]


@pytest.mark.parametrize(("family", "case"), CASES)
def test_heads(family: str, case: str) -> None:
    check_case(family, case)


@pytest.mark.parametrize(
    ("model_type", "name"),
    [("roberta", "RobertaForMaskedLM"), ("xlm-roberta", "XLMRobertaModel"), ("distilbert", "DistilBertForMaskedLM")],
)
def test_round_trip(model_type: str, name: str, tmp_path: Path) -> None:
    for safe in (True, False):
        cls = getattr(pretrained, f"TF{name}")
        model = check_round_trip(cls, model_type, tmp_path / str(safe), safe=safe)
    ids = np.array([[5, 6, 7, 8, 9], [5, 6, 7, 8, 9]])
    traced = tf.function(lambda x: model(x)[0], input_signature=[tf.TensorSpec((None, None), tf.int64)])
    np.testing.assert_allclose(traced(ids), model(ids)[0], atol=1e-5)


def test_places_of_distilbert_that_are_waves() -> None:
    """Sines and cosines, which training leaves alone."""
    model = find_tf("distilbert", "DistilBertModel")(TINY["distilbert"](sinusoidal_pos_embds=True))
    table = model.structure.variables["embeddings.position_embeddings.weight"]
    assert not table.trainable and len(model.trainable_variables) == len(model.structure.places) - 1
    np.testing.assert_allclose(
        table.numpy(), np.load(REFERENCE / "distilbert_heads/sinusoids.npy")[:20, :24], atol=1e-6
    )


def test_what_makes_no_sense_is_refused() -> None:
    cls = find_tf("roberta", "RobertaModel")
    with pytest.raises(ConfigError, match="positions are counted from pad_token_id on"):
        cls(TINY["roberta"](pad_token_id=None))
    model = cls(TINY["roberta"]())
    with pytest.raises(ValueError, match="tokens are more than"):
        model(np.full((1, 30), 5))
