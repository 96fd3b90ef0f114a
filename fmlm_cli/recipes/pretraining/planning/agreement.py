"""That all processes of a run plan the same one: the writer's settings, the same files, the same software."""

import socket

import torch
import transformers

from fmlm_cli import __version__
from fmlm_cli.config import PretrainSettings, build, nested
from fmlm_cli.engine.ranks.protocol import Ranks
from fmlm_cli.errors import UserError
from fmlm_cli.events import ignore
from fmlm_cli.recipes.pretraining.planning.plan import RunPlan, plan_run


def plan_as_told(settings: PretrainSettings, ranks: Ranks) -> RunPlan:
    """The writer's plan, made once more by a process that writes nothing and says nothing.

    One process on a machine checks its stores' hashes.
    """
    verify = settings.data.verify and ranks.local_rank == 0
    tree = settings.model_dump(), nested({"data.verify": verify})
    return plan_run(build(PretrainSettings, *tree), ignore, tokenized=True)


def check_same_software(ranks: Ranks) -> None:
    """Refuse processes of other versions, in all of them alike."""
    _check_same(versions(), ranks)


def versions() -> dict[str, str]:
    """Of what decides what a plan comes to."""
    return {"fmlm": __version__, "torch": torch.__version__, "transformers": transformers.__version__}


def check_same_plan(plan: RunPlan, ranks: Ranks) -> None:
    """Refuse processes that would train another run, in all of them alike."""
    if ranks.world > 1:
        parts = {
            "data": str(plan.stream.contents),
            "held-out data": str(plan.evaluated_contents),
            "model": str(plan.architecture),
            "initial weights": plan.weights,
            "plan": plan.identity,
        }
        _check_same(parts, ranks)


def _check_same(own: dict[str, str], ranks: Ranks) -> None:
    gathered = ranks.gather((socket.gethostname(), own))
    (first_host, first), *others = gathered
    for rank, (host, other) in enumerate(others, start=1):
        for name, value in other.items():
            if value != first[name]:
                raise UserError(
                    f"process {rank} ({host}) has another {name} than process 0 ({first_host}): "
                    f"{_cut(value)}, not {_cut(first[name])}; give all machines the same"
                )


def _cut(value: str) -> str:
    return value if len(value) <= 20 else f"{value[:16]}..."
