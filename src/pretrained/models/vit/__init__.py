"""The ViT family."""
