"""Splits by a sample of their texts: how long their sequences are, and so their batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerFast

from fmlm_cli.corpus.rows.buckets import WINDOW, LengthBuckets, by_length
from fmlm_cli.corpus.rows.sequences import Sequences, encode
from fmlm_cli.engine.batch import Batch
from fmlm_cli.objectives.classification import SequenceClassification
from fmlm_cli.recipes.finetuning.cells import batches_of_step
from fmlm_cli.tasks import Examples

Floats = npt.NDArray[np.float64]
MakeBatches = Callable[[], Sequence[Batch]]


@dataclass(frozen=True)
class SampledSplit:
    """Some of a split's sequences, of all lengths; all where it is small. `examples`: of the whole split."""

    sequences: Sequences
    examples: int

    @classmethod
    def of(
        cls, examples: Examples, tokenizer: PreTrainedTokenizerFast, max_length: int, batch_size: int
    ) -> "SampledSplit":
        """As many as are sorted by length together, so that its batches are padded as those of the split."""
        number = min(len(examples), WINDOW * batch_size)
        by_length = np.argsort(_characters(examples), kind="stable")
        index = by_length[((np.arange(number) + 0.5) / number * len(examples)).astype(int)].tolist()
        first = [examples.first[i] for i in index]
        second = None if examples.second is None else [examples.second[i] for i in index]
        return cls(encode(tokenizer, first, second, max_length), len(examples))

    @property
    def tokens(self) -> float:
        """Of the whole split, special ones included."""
        return float(self.sequences.lengths.mean()) * self.examples

    def steps(
        self, objective: SequenceClassification, batch_size: int, micro_size: int | None
    ) -> list[MakeBatches]:
        """The steps of a pass over the sample, each as what makes its batches; their labels are all alike."""
        sequences = self.sequences
        labels = np.zeros(len(sequences), np.int64)
        buckets = LengthBuckets(sequences.lengths, batch_size, seed=0)

        def step(number: int) -> MakeBatches:
            return lambda: batches_of_step(objective, buckets, number, sequences, labels, micro_size)

        return [step(number) for number in range(buckets.batches)]

    def evaluation(self, objective: SequenceClassification, batch_size: int) -> list[MakeBatches]:
        """The batches in which the sample's outputs are made, as what makes each."""

        def part(index: npt.NDArray[np.int64]) -> MakeBatches:
            return lambda: objective.prepare(self.sequences, index, None, batch_size)

        return [part(index) for index in by_length(self.sequences.lengths, batch_size)]


def _characters(examples: Examples) -> list[int]:
    """Of each example; tokens are as good as in proportion to them, and take long to count."""
    second = examples.second or [""] * len(examples)
    return [len(one) + len(other) for one, other in zip(examples.first, second, strict=True)]


def shape_of(batches: Sequence[Batch]) -> list[float]:
    """What the time of some batches is made of.

    One for all (the optimizer's step), one for each, their positions, and the pairs of positions that attend
    to each other; padding counts.
    """
    shapes = [batch.inputs["input_ids"].shape for batch in batches]
    positions = [float(np.prod(shape)) for shape in shapes]
    pairs = sum(number * shape[-1] for number, shape in zip(positions, shapes, strict=True))
    return [1.0, float(len(batches)), sum(positions), pairs]
