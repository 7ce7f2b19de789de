"""Generation in TensorFlow."""
