"""What the cells of a checkpoint take."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from fmlm_cli.events import Doing, Emit, ignore
from fmlm_cli.model.ending import let_go
from fmlm_cli.recipes.finetuning.candidates import Candidate
from fmlm_cli.recipes.finetuning.cells import CellRun, EncodedSplit, Prepared, passes_between_evaluations
from fmlm_cli.recipes.finetuning.estimating.probing import Costs, probe
from fmlm_cli.recipes.finetuning.estimating.samples import Floats, SampledSplit, shape_of
from fmlm_cli.recipes.finetuning.grid import Cell, batches_of, epochs_of
from fmlm_cli.recipes.finetuning.plan import FinetunePlan
from fmlm_cli.recipes.shared.estimates.estimate import BYTES_OF_WEIGHT
from fmlm_cli.recipes.shared.estimates.timing import TIMED_SECONDS, TIMED_STEPS
from fmlm_cli.tasks import Examples

_BYTES_OF_TOKEN = 5  # on the disk and in memory: its id and its type


@dataclass(frozen=True)
class CellCost:
    """What a cell takes: seconds by part, steps, and tokens trained on."""

    parts: Mapping[str, float]
    steps: int
    tokens: float

    @property
    def seconds(self) -> float:
        """In all."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class _Sampled:
    """A task's splits by samples. `measured`: all that have labels, and those that only get predictions."""

    train: SampledSplit
    decides: SampledSplit
    measured: Sequence[SampledSplit]
    predicted: Sequence[SampledSplit]

    @property
    def all(self) -> list[SampledSplit]:
        return [self.train, *self.measured, *self.predicted]


@dataclass
class CheckpointCosts:
    """A checkpoint's cells: `plan`'s tasks in samples, and its models timed. Nothing is written.

    `number`, `seconds`: of what is timed, at most. `bytes_of_model`: of the weights in a file.
    """

    plan: FinetunePlan
    candidate: Candidate
    emit: Emit = ignore
    number: int = TIMED_STEPS
    seconds: float = TIMED_SECONDS
    _shapes: dict[tuple[str, int], Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cells = [cell for cell in self.plan.cells if cell.checkpoint == self.candidate.name]
        self.largest = max(cell.point.training.batch_size for cell in cells)
        self.emit(Doing("tokenizing some of each set"))
        self.tasks = {task: self._sample(task) for task in self.plan.data}
        begun = time.monotonic()
        run = self._probe(cells[0])
        making = time.monotonic() - begun
        self.objective, self.bytes_of_model = run.objective, BYTES_OF_WEIGHT * _size(run.model)
        sizes = {(cell.task, cell.point.training.batch_size) for cell in cells}
        objective, micro = self.objective, self.plan.settings.micro_size
        steps = [
            step
            for task, size in sorted(sizes)
            for step in self.tasks[task].train.steps(objective, size, micro)
        ]
        forwards = [
            make for task in self.tasks.values() for make in task.decides.evaluation(objective, self.largest)
        ]
        self.costs: Costs = probe(
            run, steps, forwards, making, self.emit, number=self.number, seconds=self.seconds
        )
        let_go(run.model)

    def _probe(self, cell: Cell) -> CellRun:
        """A cell's run on its task's sample, which leaves no trace."""
        data, encoder = self.plan.data[cell.task], self.candidate.encoder
        train = EncodedSplit(data.train, self.tasks[cell.task].train.sequences)
        prepared = Prepared(data, encoder, self.candidate.tokenizer, train, {}, {})
        backend = self.candidate.backends[cell.point.training.dropout]
        return CellRun(
            cell, prepared, self.plan.settings, self.plan.runtime, backend, self.plan.folder(cell), ignore
        )

    def _sample(self, task: str) -> _Sampled:
        data, length = self.plan.data[task], self.plan.settings.max_length
        assert length is not None

        def sampled(examples: Examples) -> SampledSplit:
            return SampledSplit.of(examples, self.candidate.tokenizer, length, self.largest)

        dev = {name: sampled(examples) for name, examples in data.dev.items()}
        tests = [(examples.labels is not None, sampled(examples)) for examples in data.test.values()]
        return _Sampled(
            sampled(data.train),
            dev[data.decides],
            [*dev.values(), *(split for labelled, split in tests if labelled)],
            [split for labelled, split in tests if not labelled],
        )

    def cost(self, cell: Cell) -> CellCost:
        """What a cell takes."""
        training, task, examples = (
            cell.point.training,
            self.tasks[cell.task],
            len(self.plan.data[cell.task].train),
        )
        epochs = epochs_of(training, examples)
        steps = epochs * batches_of(training, examples)
        evaluations = -(-epochs // passes_between_evaluations(epochs))
        measured = sum(map(self._outputs, task.measured)) + evaluations * self._outputs(task.decides)
        parts = {
            "start": self.costs.starting,
            "training": steps * self.costs.seconds_of_steps(self._steps(cell.task, training.batch_size)),
            "evaluation": measured,
        }
        return CellCost(parts, steps, epochs * task.train.tokens)

    def seconds_to_predict(self, task: str) -> float:
        """What the texts without labels take, which the best model predicts."""
        return sum(map(self._outputs, self.tasks[task].predicted))

    def _steps(self, task: str, batch_size: int) -> Floats:
        if (task, batch_size) not in self._shapes:
            steps = self.tasks[task].train.steps(self.objective, batch_size, self.plan.settings.micro_size)
            self._shapes[task, batch_size] = np.array([shape_of(step()) for step in steps])
        return self._shapes[task, batch_size]

    def _outputs(self, split: SampledSplit) -> float:
        """Seconds of a forward of a whole split."""
        made = split.evaluation(self.objective, self.largest)
        sample = self.costs.seconds_of_forwards(np.array([shape_of(make()) for make in made]))
        return sample * split.examples / len(split.sequences)

    @property
    def bytes_of_tokens(self) -> int:
        """Of all splits as tokens."""
        return round(
            sum(_BYTES_OF_TOKEN * split.tokens for task in self.tasks.values() for split in task.all)
        )

    @property
    def memory(self) -> int:
        """At most: on a CPU with the largest task's tokens, and the best weights, kept and written."""
        if self.plan.runtime.device.type != "cpu":
            return self.costs.memory
        tokens = max(sum(split.tokens for split in task.all) for task in self.tasks.values())
        return self.costs.memory + 2 * self.bytes_of_model + round(_BYTES_OF_TOKEN * tokens)


def _size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
