"""Labelled sets: GLUE and any other, their measures, GLUE's submissions. Knows no models and no training."""

from fmlm_cli.tasks.files import load_files
from fmlm_cli.tasks.glue import GLUE, GlueTask, available, glue_average, load_glue
from fmlm_cli.tasks.glue_hub import REPOSITORY as GLUE_ON_HUB
from fmlm_cli.tasks.metrics import METRICS, compute_metrics, predictions_of
from fmlm_cli.tasks.submission import write_predictions, write_submission, zip_submissions
from fmlm_cli.tasks.task import Examples, Task, TaskData

__all__ = [
    "GLUE",
    "GLUE_ON_HUB",
    "METRICS",
    "Examples",
    "GlueTask",
    "Task",
    "TaskData",
    "available",
    "compute_metrics",
    "glue_average",
    "load_files",
    "load_glue",
    "predictions_of",
    "write_predictions",
    "write_submission",
    "zip_submissions",
]
