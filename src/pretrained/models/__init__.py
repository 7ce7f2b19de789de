"""Model families, a folder each; none is imported before it is wanted."""
