"""Recipes: plain functions from settings to results. They alone put the rooms together; no Typer in here.

Nothing is imported here, so that a command imports only what it uses.
"""
