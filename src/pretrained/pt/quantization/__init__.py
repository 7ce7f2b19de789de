"""Quantized weights in torch: what the schemes share, and one file a scheme."""

from __future__ import annotations

from ...quantization.configs import BitsAndBytesConfig
from ...quantization.scheme import Scheme
from .base import TorchQuantizer

__all__ = ["quantizer_for"]


def quantizer_for(scheme: Scheme) -> TorchQuantizer:
    """What quantizes a model by this scheme.

    Raises:
        MissingFrameworkError: the scheme's library is not installed.
    """
    if isinstance(scheme.config, BitsAndBytesConfig):
        from .bitsandbytes import Bits4Quantizer, Bits8Quantizer

        return Bits4Quantizer(scheme) if scheme.config.load_in_4bit else Bits8Quantizer(scheme)
    from .torchao import TorchAoQuantizer

    return TorchAoQuantizer(scheme)
