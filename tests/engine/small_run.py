"""A small net that learns sums, and a run of it, as one process sees it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fmlm_cli.config.schema import OptimizerSettings
from fmlm_cli.engine.batch import Batch
from fmlm_cli.engine.checkpoint import Checkpoints
from fmlm_cli.engine.loop import Rhythm, TrainingRun
from fmlm_cli.engine.optimizer import Schedule, make_optimizer
from fmlm_cli.engine.ranks.protocol import Ranks
from fmlm_cli.engine.records import MetricsLog
from fmlm_cli.engine.runtime import Runtime

WIDTH = 4
# Of training records: not the same in two runs.
TIMING_FIELDS = ("tokens_per_second", "peak_share", "seconds", "data_wait_share", "memory_gib")
ADAMW = OptimizerSettings(weight_decay=0.1, betas=(0.9, 0.98), epsilon=1e-6)


class Squares:
    """Summed squared errors of a small net."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return (model(batch.inputs["x"]) - batch.inputs["y"]).square().sum()

    def score(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        return {"loss": self.loss(model, batch)}

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        found: Tensor = model(batch.inputs["x"])
        return found.float()


def net() -> nn.Module:
    """The same on every call, without the generator that threads share."""
    made = nn.Sequential(nn.Linear(WIDTH, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        parameter.data.uniform_(-1, 1, generator=generator)
    return made


def batches_of(step: int, sizes: Sequence[int]) -> list[Batch]:
    generator = torch.Generator().manual_seed(step)
    begun, made = 100 * step, []
    for size in sizes:
        x = torch.randn(size, WIDTH, generator=generator, dtype=torch.float64)
        rows = tuple(range(begun, begun + size))
        made.append(Batch({"x": x, "y": x.sum(1, keepdim=True)}, size, 3 * size, rows))
        begun += size
    return made


def runtime(ranks: Ranks) -> Runtime:
    return Runtime(torch.device("cpu"), torch.float32, ranks)


class Run:
    """A run of six steps in a folder, as one process sees it."""

    def __init__(self, folder: Path, ranks: Ranks, **changed: Any) -> None:
        self.model = net()
        self.log = MetricsLog(folder / "metrics.jsonl")
        self.checkpoints = Checkpoints(
            folder / "checkpoints",
            2,
            "run",
            self.save,
            self.load,
            stays=changed.pop("stays", lambda step: False),
            background=changed.pop("background", False),
            on_failure=changed.pop("on_failure", None),
        )
        self.run = TrainingRun(
            model=self.model,
            objective=Squares(),
            optimizer=make_optimizer(ADAMW, self.model),
            schedule=Schedule(0.01, total_steps=6, warmup_steps=2),
            prepare=lambda step: list(ranks.mine(batches_of(step, [2, 3, 1]))),
            evaluate=lambda step, stop: [{"evaluation": "e", "eval_loss": float(step)}],
            checkpoints=self.checkpoints,
            sinks=(self.log,),
            rhythm=Rhythm(log=2, evaluate=3, checkpoint=changed.pop("checkpoint", 1)),
            seed=0,
            runtime=runtime(ranks),
            clip=1.0,
            **changed,
        )

    def save(self, model: nn.Module, folder: Path) -> None:
        save_file(model.state_dict(), folder / "model.safetensors")

    def load(self, folder: Path) -> None:
        self.model.load_state_dict(load_file(folder / "model.safetensors"))
