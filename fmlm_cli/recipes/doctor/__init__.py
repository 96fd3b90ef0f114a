"""`fmlm doctor`: what training will meet on this machine, before a night is spent on it."""

from fmlm_cli.recipes.doctor.run import DoctorReport, examine

__all__ = ["DoctorReport", "examine"]
