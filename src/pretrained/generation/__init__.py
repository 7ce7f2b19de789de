"""Generation: what is the same for every framework."""
