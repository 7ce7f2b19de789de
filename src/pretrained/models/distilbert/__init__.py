"""The DistilBERT family."""
