"""Rows of tokens: packed, planned, ordered, mixed."""
