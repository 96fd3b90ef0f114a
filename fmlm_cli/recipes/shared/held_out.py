"""The fixed evaluation that pre-training and `fmlm evaluate` share: its masks know no training setting."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fmlm_cli.config import EvaluationSettings
from fmlm_cli.corpus.rows.reading import RowReader
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.engine.batch import Batch
from fmlm_cli.engine.evaluation import evaluate
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.engine.signals import NEVER, StopRequest
from fmlm_cli.engine.step import DivergedError
from fmlm_cli.masking import Strategy, get_strategy
from fmlm_cli.model.layouts import LayoutName
from fmlm_cli.model.masked_lm import MaskedLM
from fmlm_cli.objectives.masked_lm import MaskedLanguageModelling, unigram_losses

# Fixed: evaluations of any two runs stay comparable (a test keeps the masks as they are).
EVALUATION_SEED = 20_100_604
EVALUATION_RATE = 0.15


def make_objective(
    store: TokenStore, strategy: Strategy, seed: int, *, static_shapes: bool, layout: LayoutName = "rows"
) -> MaskedLanguageModelling:
    """Masked language modelling over a store's vocabulary, in the layout of an attention backend."""
    special = store.special
    ordinary = np.setdiff1d(np.arange(store.vocabulary), list(special.never_masked))
    return MaskedLanguageModelling(
        strategy,
        seed,
        special.mask,
        ordinary,
        unigram_losses(store.token_counts, special.never_masked),
        static_shapes,
        layout,
    )


@dataclass(frozen=True)
class Scores:
    """An evaluation's result.

    `record`: the fields for metrics.jsonl. `token_losses`, `token_counts`: float64[vocabulary of the model],
    summed loss and occurrences by token id.
    """

    record: dict[str, float]
    token_losses: npt.NDArray[np.float64]
    token_counts: npt.NDArray[np.float64]


@dataclass(frozen=True)
class HeldOut:
    """A store's validation rows under random masks of 15 %, 80/10/10, that never change.

    They depend neither on the training's strategy nor on its seed.
    """

    reader: RowReader
    objective: MaskedLanguageModelling
    batch_size: int

    @classmethod
    def of(cls, store: TokenStore, reader: RowReader, batch_size: int) -> "HeldOut":
        """The evaluation of these rows of `store`."""
        strategy = get_strategy("random", rate=EVALUATION_RATE)
        return cls(reader, make_objective(store, strategy, EVALUATION_SEED, static_shapes=False), batch_size)

    @classmethod
    def like(
        cls, training: RowReader, store: TokenStore, evaluation: EvaluationSettings, batch_size: int
    ) -> "HeldOut":
        """The evaluation of a store's validation rows, or their subset, cut as the training rows are."""
        row_plan = training.plan
        reader = RowReader(
            store,
            "validation",
            packing=row_plan.packing,
            sequence_length=row_plan.sequence_length,
            max_rows=evaluation.max_rows,
            subset_seed=evaluation.subset_seed,
        )
        return cls.of(store, reader, batch_size)

    @property
    def has_targets(self) -> bool:
        """Whether any token is masked; in a text of a few words there may be none."""
        return any(batch.count for batch in self.batches())

    def batches(self, layout: LayoutName = "rows") -> Iterator[Batch]:
        """The rows in order, masked."""
        objective = replace(self.objective, layout=layout)
        for begin in range(0, len(self.reader), self.batch_size):
            index = np.arange(begin, min(begin + self.batch_size, len(self.reader)))
            yield from objective.prepare(self.reader.read(index), 0, self.batch_size)

    def _evened(self, batches: Iterator[Batch], world: int) -> Iterator[Batch]:
        """The same, and more without targets, up to a number that can be dealt out evenly."""
        number = 0
        for number, batch in enumerate(batches, start=1):  # noqa: B007 - the last ones are asked for below
            yield batch
        for _ in range(-number % world):
            yield self.objective.without_targets(batch)

    def run(
        self,
        model: MaskedLM,
        runtime: Runtime,
        stop: StopRequest = NEVER,
        progress: Callable[[int], None] = lambda done: None,
    ) -> Scores:
        """Evaluate a model; `progress` is told how many rows have been made ready.

        The record has `eval_loss` (nats), `eval_perplexity`, `eval_accuracy`, `unigram_loss` of the same
        targets. Raises `DivergedError` for a loss that is no number, `StoppedError` if a stop is asked for.
        """
        batches = _counted(self.batches(model.attention.layout), progress)
        if runtime.shard:
            batches = self._evened(batches, runtime.ranks.world)
        sums, count = evaluate(model, self.objective, batches, runtime, stop)
        by_token = [sums.pop(name).numpy() for name in ("token_losses", "token_counts")]
        means = {name: float(value) / count for name, value in sums.items()}
        loss = means.pop("eval_loss")
        if not math.isfinite(loss):
            raise DivergedError(
                f"the held-out loss is not finite ({loss:g}): the model's weights are damaged or too large"
            )
        perplexity = float(np.exp(min(loss, 700.0)))
        return Scores({"eval_loss": loss, "eval_perplexity": perplexity, **means}, *by_token)


def _counted(batches: Iterator[Batch], progress: Callable[[int], None]) -> Iterator[Batch]:
    done = 0
    for batch in batches:
        yield batch
        done += len(batch.rows)
        progress(done)
