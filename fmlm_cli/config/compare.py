"""Settings of `fmlm compare-masks`."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator

from fmlm_cli.config.finetune import Hyperparameters
from fmlm_cli.config.schema import PretrainSettings
from fmlm_cli.config.section import GLUE, STRATEGIES, Budget, Count, Free, Positive, Section, Seed

Part = Literal["coverage", "variance", "race", "downstream"]
Checkpoint = Literal["start", "early", "late"]
MeasuredCorruption = Literal["mask-only", "race"]
CHECKPOINTS: tuple[Checkpoint, ...] = get_args(Checkpoint)
CORRUPTIONS: tuple[MeasuredCorruption, ...] = get_args(MeasuredCorruption)
AtLeastTwo = Annotated[int, Field(ge=2)]
LEAST_SEQUENCES = 10  # fewer do not show how much rows differ, on which their intervals rest


class VarianceSettings(Section):
    """How gradient variance is measured."""

    checkpoints: Free[tuple[Checkpoint, ...]] = Field(
        CHECKPOINTS,
        description="of which models: before the race, after a tenth and at the end "
        "of the baseline's first run",
    )
    corruptions: Free[tuple[MeasuredCorruption, ...]] = Field(
        CORRUPTIONS, description="every masked token [MASK] | as in the race"
    )
    unit: Literal["token", "word", "span"] = Field("token", description="what is masked as a whole")
    sequences: Annotated[int, Field(ge=LEAST_SEQUENCES)] = Field(
        100, description="rows that are measured, drawn at random"
    )
    first: Annotated[int, Field(ge=0)] = Field(0, description="where among the drawn rows to begin")
    random: AtLeastTwo = Field(8, description="independent random masks of each row")
    sets: AtLeastTwo = Field(2, description="sets of K segments of each row")
    pairs: AtLeastTwo = Field(2, description="pairs of masks at each distance")
    distances: tuple[float, ...] = Field(
        (0.0, 0.25, 0.5, 0.75, 1.0), description="Hamming distances, in quarters of the largest one"
    )
    sketch: Count | None = Field(
        None, description="project gradients to this many dimensions, for models too large for exact sums"
    )


class RaceSettings(Section):
    """What of the race is not a run's own."""

    vary_rows: bool = Field(
        True,
        description="each seed draws rows of its own, of training and of held-out text, where "
        "run.data.max_rows and run.evaluation.max_rows leave some out, so that intervals "
        "hold for another sample of the text too",
    )
    fresh_control: bool = Field(
        True, description="with run.data.max_rows: also a random run on rows that are never seen twice"
    )
    target_loss: Positive | None = Field(
        None,
        description="for tokens-to-reach; default: the lowest loss that an arm and the baseline "
        "both reach with a seed",
    )
    rerun_to_target: bool = Field(
        False,
        description="once the race is done, train each arm that came to the baseline's loss sooner again, "
        "with a schedule that ends there",
    )


class DownstreamSettings(Section):
    """On what, and how, raced models are fine-tuned."""

    tasks: Free[tuple[str, ...]] = Field(
        (),
        examples=GLUE,
        description="tasks to fine-tune the raced models on: GLUE's, or folders that hold "
        "train, dev and perhaps test files",
    )
    folder: Free[str | None] = Field(None, description="where GLUE's files, or the folders of the tasks, lie")
    text_field: Free[str | None] = Field(None, description="field of the text; default: found by its name")
    text_pair_field: Free[str | None] = Field(None, description="field of a second text")
    label_field: Free[str | None] = Field(None, description="field of the label or score")
    metrics: Free[dict[str, str]] = Field(
        {}, description="what decides, by task; default: as in fmlm finetune"
    )
    seeds: Count = Field(1, description="fine-tuned models of each raced one; their mean counts for it")
    training: Hyperparameters = Hyperparameters()
    select: Literal["best", "last"] = Field("best", description="which epoch counts, as in fmlm finetune")
    max_length: Count | None = Field(None, description="tokens in a sequence, as in fmlm finetune")


class CompareSettings(Section):
    """`fmlm compare-masks`."""

    out: str | None = Field(None, description="folder of the results")
    strategies: tuple[str, ...] = Field(
        ("random", "fully-explored"),
        examples=STRATEGIES,
        description="each NAME[:SETTING=VALUE...], with settings of masking or rows=fresh, e.g. "
        "random,fully-explored:scope=batch; the first plain random is the baseline",
    )
    seeds: Count = Field(3, description="runs of each strategy: weights, order and masks differ")
    first_seed: Seed = Field(0, description="the seeds are this and the numbers after it")
    only: tuple[Part, ...] = Field(
        (),
        examples=list(get_args(Part)),
        description="parts to do, of coverage, variance, race and downstream, with --resume beside "
        "earlier ones; default: all, downstream if there are tasks",
    )
    budget: str | None = Field(
        None,
        examples=["2000-steps", "5M-tokens", "7-epochs", "20m", "2h"],
        description="length of each run of the race: 2000-steps, 5M-tokens, 7-epochs (forward passes), "
        "20m or 2h",
    )
    run: PretrainSettings = PretrainSettings()
    race: RaceSettings = RaceSettings()
    variance: VarianceSettings = VarianceSettings()
    downstream: DownstreamSettings = DownstreamSettings()
    sweep: dict[str, Any] = Field(
        {},
        description="lists of values, every combination of which is raced too: of strategy, "
        "of settings of masking (segments, scope, ...), or below run",
    )

    @field_validator("budget")
    @classmethod
    def _is_a_budget(cls, text: str | None) -> str | None:
        if text is not None:
            Budget.parse(text)
        return text
