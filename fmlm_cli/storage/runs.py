"""The run directory's layout."""

from dataclasses import dataclass
from pathlib import Path

from fmlm_cli.storage.ownership import Kind

RUN_CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
STATE = "state.json"  # of a checkpoint
RUN = Kind(
    "run",
    "pretrain",
    (
        *(RUN_CONFIG, METRICS, "checkpoints", "final", "first_scores.safetensors", "plots"),
        *("tensorboard", "trackers", "wandb"),
    ),
)


@dataclass(frozen=True)
class RunDirectory:
    """Where things lie in a run: config.yaml, metrics.jsonl, checkpoints/step-N/, final/, plots/."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved settings, themselves a valid input."""
        return self.root / RUN_CONFIG

    @property
    def metrics(self) -> Path:
        """One JSON object a line."""
        return self.root / METRICS

    @property
    def checkpoints(self) -> Path:
        """Holds one folder step-N for each checkpoint kept."""
        return self.root / "checkpoints"

    @property
    def final(self) -> Path:
        """The finished model, a plain Hugging Face folder; exists only when the run is complete."""
        return self.root / "final"

    @property
    def first_scores(self) -> Path:
        """Held-out losses by token before the first step."""
        return self.root / "first_scores.safetensors"

    @property
    def plots(self) -> Path:
        """Pictures."""
        return self.root / "plots"

    @property
    def is_finished(self) -> bool:
        """Whether the run has left its final model, which may have been damaged since."""
        return self.final.is_dir()
