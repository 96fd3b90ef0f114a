"""A run in words: what is about to happen, and what came of it."""
