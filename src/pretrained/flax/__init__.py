"""JAX models: NNX modules inside, functions of their parameters outside."""
