"""The names of the ViT family."""

from __future__ import annotations

from .._family import Family

__all__ = ["FAMILY"]

FAMILY = Family(
    model_type="vit",
    config="configuration_vit:ViTConfig",
    pt={
        "AutoModel": "modeling_vit:ViTModel",
        "AutoModelForImageClassification": "modeling_vit_heads:ViTForImageClassification",
        "AutoModelForMaskedImageModeling": "modeling_vit_heads:ViTForMaskedImageModeling",
    },
    flax={
        "FlaxAutoModel": "modeling_flax_vit:FlaxViTModel",
        "FlaxAutoModelForImageClassification": "modeling_flax_vit:FlaxViTForImageClassification",
        "FlaxAutoModelForMaskedImageModeling": "modeling_flax_vit:FlaxViTForMaskedImageModeling",
    },
    tf={
        "TFAutoModel": "modeling_tf_vit:TFViTModel",
        "TFAutoModelForImageClassification": "modeling_tf_vit_heads:TFViTForImageClassification",
        "TFAutoModelForMaskedImageModeling": "modeling_tf_vit_heads:TFViTForMaskedImageModeling",
    },
    names=(
        "modeling_vit:ViTPreTrainedModel",
        "modeling_flax_vit:FlaxViTPreTrainedModel",
        "modeling_tf_vit:TFViTPreTrainedModel",
    ),
)
