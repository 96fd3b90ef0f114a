"""`fmlm predict`."""

from fmlm_cli.recipes.prediction.run import predict

__all__ = ["predict"]
