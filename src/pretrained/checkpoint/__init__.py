"""Weights at rest: found, planned, read and replaced; no framework is imported here."""
