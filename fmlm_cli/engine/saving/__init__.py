"""Checkpoints written while training goes on: a copy in the host's memory, and who writes it."""
