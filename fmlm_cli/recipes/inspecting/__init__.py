"""`fmlm inspect`: what a token store holds, or what text would become one."""

from fmlm_cli.recipes.inspecting.sources import SourcesReport, inspect_sources
from fmlm_cli.recipes.inspecting.store import StoreReport, inspect_store, is_store

__all__ = ["SourcesReport", "StoreReport", "inspect_sources", "inspect_store", "is_store"]
