"""torch: the facade, its backend, and the mechanisms that families are made of."""
