"""Generation in torch: the mixin, a file for each way to decode, what changes logits, and what stops."""
