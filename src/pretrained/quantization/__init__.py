"""What a caller or a checkpoint says of quantized weights; without a framework."""
