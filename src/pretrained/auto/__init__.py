"""Auto classes: from a checkpoint's model_type to the class that reads it."""
