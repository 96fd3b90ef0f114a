"""`fmlm push`, and what training does when it is to push its model."""

from fmlm_cli.recipes.publishing.run import check_push, preview, push, push_finished

__all__ = ["check_push", "preview", "push", "push_finished"]
