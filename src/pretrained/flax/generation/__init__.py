"""Generation in JAX: one compiled program from the prompt to the last token."""
