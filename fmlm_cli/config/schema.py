"""Every setting: its name, type, default and meaning.

A value that is None is decided later, from the data or the model, and is written into the run's `config.yaml`
as what it became.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from fmlm_cli.config.publishing import HubSettings
from fmlm_cli.config.section import (
    DEVICES,
    MODELS,
    STRATEGIES,
    Count,
    Free,
    Packing,
    PartedByCommas,
    Positive,
    Precision,
    Section,
    Seed,
    Share,
)
from fmlm_cli.config.speed import ComputingSettings, SpeedSettings
from fmlm_cli.config.tokenize import TextSettings


class DataSettings(Section):
    """Which tokens, and how they become rows."""

    stores: Free[tuple[str, ...]] = Field(
        (),
        description="folders made by `fmlm tokenize`; several are mixed, by STORE:WEIGHT or by their rows",
    )
    replay: Free[tuple[str, ...]] = Field(
        (), description="stores that give a share of all rows, against forgetting: STORE:SHARE"
    )
    packing: Packing = Field(
        "documents",
        description="documents share rows without seeing each other | continuous text | one to a row",
    )
    max_rows: Count | None = Field(
        None, description="train on a fixed subset of this many rows; default: all"
    )
    subset_seed: Seed = Field(0, description="which rows data.max_rows keeps")
    verify: Free[bool] = Field(True, description="check the stores' hashes before training")
    first_row: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="where in the endless stream of rows to begin; default 0, or where the run "
        "that is gone on with stopped",
    )


class LoraSettings(Section):
    """Low-rank adapters (Hu et al. 2021) in place of the layers' own weights."""

    rank: Count | None = Field(
        None, description="rank of LoRA adapters, merged at the end; null: train the weights themselves"
    )
    alpha: Positive | None = Field(None, description="their scale is alpha / rank; default twice the rank")
    dropout: Share = Field(0.0, description="dropout before the adapters")


class ModelSettings(Section):
    """What is trained."""

    name: str = Field(
        "bert-mini",
        examples=MODELS,
        description="shape from scratch: bert-tiny, -mini, -small, -medium, -base, -large, distilbert-base, "
        "roberta-base, modernbert-base, deberta-v3-base, or a Hugging Face config.json",
    )
    checkpoint: Free[str | None] = Field(
        None, description="what to go on from: a run, RUN@step-N, a Hugging Face folder, or a Hub name"
    )
    revision: str | None = Field(None, description="branch, tag or commit of a Hub name; becomes the commit")
    trust_remote_code: bool = Field(False, description="run the Python code that a checkpoint brings")
    dropout: Share | None = Field(
        None,
        description="all of the model's dropout rates; default 0 from scratch, "
        "else the run's or checkpoint's own",
    )
    unigram_bias: bool = Field(
        True,
        description="start a new head's bias at the log frequencies of the tokens, "
        "so that training begins there",
    )
    max_positions: Count | None = Field(None, description="extend the checkpoint to sequences of this length")
    keep_unused: bool = Field(
        False, description="keep the checkpoint's weights that a masked LM does not use, such as a pooler"
    )
    freeze: tuple[str, ...] = Field(
        (),
        examples=["embeddings", "head"],
        description="what stays as it is: embeddings, head, layers such as 0-3 or 5",
    )
    lora: LoraSettings = LoraSettings()


class CorruptionSettings(Section):
    """What happens to a masked position. The three shares sum to 1."""

    mask: Share = Field(0.8, description="share that becomes [MASK]")
    random: Share = Field(0.1, description="share that becomes a random ordinary token")
    keep: Share = Field(0.1, description="share that stays as it is")
    draw: Literal["stratified", "independent"] = Field(
        "stratified", description="exact shares within each mask, or a draw of its own for each token"
    )

    @model_validator(mode="after")
    def _sum_to_one(self) -> "CorruptionSettings":
        total = self.mask + self.random + self.keep
        if abs(total - 1) > 1e-6:
            raise ValueError(f"mask + random + keep must be 1, not {total:g}")
        return self


class RateScheduleSettings(Section):
    """A mask rate that changes over training."""

    shape: Literal["constant", "linear", "cosine", "step"] = Field(
        "constant", description="how the mask rate goes from masking.rate to final_rate"
    )
    final_rate: Positive | None = Field(
        None, description="rate at the end; full exploration: the nearest 1/K, changed between cycles"
    )
    plateaus: Annotated[int, Field(ge=2)] = Field(2, description="of the shape step: rates held in turn")

    @model_validator(mode="after")
    def _both_or_none(self) -> "RateScheduleSettings":
        if (self.shape == "constant") != (self.final_rate is None):
            raise ValueError(
                "final_rate needs a shape: linear, cosine or step"
                if self.shape == "constant"
                else f"shape {self.shape} needs the final_rate to go to"
            )
        return self


class MaskingSettings(Section):
    """Which tokens are predicted when."""

    strategy: str = Field(
        "fully-explored",
        examples=STRATEGIES,
        description="strategy: random, whole-word, span or pmi; fully-explored, fully-explored-word, "
        "-span or -pmi; or package.module:object",
    )
    segments: Count | None = Field(
        None, description="K: masks that together cover a sequence, so the rate is 1/K; default 7"
    )
    rate: Positive | None = Field(None, description="share of tokens in a mask; default 1/segments")
    scope: Literal["epoch", "batch"] | None = Field(
        None, description="full exploration: one segment a pass over the data (default) | all K in one step"
    )
    masks_per_sequence: Count | None = Field(
        None, description="random exploration: masks of one sequence in one step (default 1)"
    )
    count: Literal["exact", "bernoulli"] = Field(
        "exact",
        description="random exploration: rate * n tokens in each mask | "
        "every unit masked with probability rate",
    )
    options: dict[str, Any] = Field(
        {},
        description="what only this strategy has; span: p (0.2) and longest (10), its lengths' distribution",
    )
    corruption: CorruptionSettings = CorruptionSettings()
    schedule: RateScheduleSettings = RateScheduleSettings()


class BatchSettings(Section):
    """How many rows make an optimizer step."""

    size: Count | None = Field(
        None,
        description="masked rows forwarded per optimizer step, all processes together; default by preset",
    )
    micro_size: Free[Literal["auto"] | Count] = Field(
        "auto",
        description="rows forwarded at once: changes memory and speed, and results by rounding alone, but "
        "that dropout's draws depend on it; auto: what fills a GPU and fits it, on a CPU 4096 positions",
    )

    @field_validator("micro_size", mode="before")
    @classmethod
    def _auto_or_rows(cls, value: Any) -> Any:
        """In one sentence, where a union has one for each of its members."""
        if value != "auto" and (type(value) is not int or value < 1):
            raise ValueError(f"should be auto or a whole number greater than 0, not {value!r}")
        return value


class BudgetSettings(Section):
    """How long to train: one of them; the minutes of a run that was begun stand beside its tokens."""

    steps: Count | None = Field(None, description="budget in optimizer steps")
    tokens: Positive | None = Field(None, description="budget in tokens forwarded, padding not counted")
    epochs: Positive | None = Field(None, description="budget in passes over the rows")
    minutes: Free[Positive | None] = Field(
        None, description="budget in minutes, which a few timed steps turn into tokens when a run begins"
    )


class OptimizerSettings(Section):
    """AdamW and its schedule."""

    learning_rate: Positive | None = Field(
        None, description="peak; default by the model's size, lower where a checkpoint is gone on with"
    )
    schedule: Literal["linear", "cosine", "wsd"] = Field(
        "linear",
        description="learning rate after warm-up: linear or cosine decay | wsd: hold the peak, then decay",
    )
    warmup_share: Share | None = Field(
        None,
        description="share of the steps spent warming up; default 0.06 from scratch, else 0.03, and no less "
        "than 10 steps, or half of a run that is shorter than 20",
    )
    decay_share: Share = Field(
        0.2, description="of wsd: share of the steps that decay, linearly; 0: none, to go on from later"
    )
    final_share: Share = Field(0.0, description="learning rate at the end, as a share of the peak")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.01, description="not applied to biases and norms")
    betas: tuple[Share, Share] = Field((0.9, 0.98), description="AdamW's decay rates")
    epsilon: Positive = Field(1e-6, description="AdamW's epsilon")
    clip: Positive | None = Field(1.0, description="largest gradient norm; null: no clipping")
    on_nonfinite: Literal["stop", "skip"] = Field(
        "stop",
        description="a step whose loss or gradient is not finite ends the run | is left out and counted; 25 "
        "in a row end the run",
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="factor of the rate from each layer to the one below it"
    )
    head_warmup_steps: Annotated[int, Field(ge=0)] = Field(
        0, description="steps at the beginning that train the head alone, for a head that is new"
    )
    head_learning_rate: Positive | None = Field(
        None, description="rate of these steps; default that of a model of this size from scratch"
    )
    carry_over: bool = Field(
        False, description="go on with the optimizer's state of the run that is gone on with"
    )


class CheckpointSettings(Section):
    """What makes a run survive."""

    every_steps: Count | None = Field(None, description="default: a tenth of the run, at most 1,000")
    keep: Count = Field(2, description="latest checkpoints kept")
    keep_every: Count | None = Field(
        None, description="there is a checkpoint after every so many steps, too, that stays for good"
    )
    background: bool | Literal["auto"] = Field(
        "auto",
        description="write from a copy in the host's memory while training goes on; auto: from 16 MiB on",
    )
    on_error: Literal["stop", "continue"] = Field(
        "stop",
        description="when one cannot be written, as on a full disk: stop | go on without it, and say so",
    )


class EvaluationSettings(Section):
    """Held-out loss on fixed masks, the same for every strategy and seed."""

    every_steps: Count | None = Field(None, description="default: a tenth of the run, at most 5,000")
    max_rows: Count | None = Field(512, description="a fixed subset of the validation rows; null: all")
    subset_seed: Seed = Field(0, description="which rows evaluation.max_rows keeps")
    stores: Free[dict[str, str]] = Field(
        {}, description="more stores whose held-out text to evaluate on, by a name for each"
    )
    names: Free[dict[str, str]] = Field(
        {},
        description="what held-out texts are called in the records, by their stores' fingerprints; filled "
        "in, as a store may be renamed",
    )


TrackerName = Literal["tensorboard", "wandb", "trackio"]


class LoggingSettings(Section):
    """Training records in metrics.jsonl, and in trackers beside it."""

    every_steps: Count | None = Field(None, description="default: every step up to 5,000, then fewer")
    to: PartedByCommas[TrackerName] = Field(
        (),
        description="trackers that take the records too, of tensorboard, wandb, trackio: RUN/tensorboard | "
        "W&B, offline where you are not logged in | trackio's own database",
    )
    project: str = Field("fmlm", description="under which project W&B and trackio list the run")


class PretrainSettings(Section):
    """`fmlm pretrain` and `fmlm continue`."""

    out: Free[str | None] = Field(None, description="the run's folder")
    seed: Seed = Field(0, description="seed of weights, order, masks and dropout")
    sequence_length: Count | None = Field(
        None, description="positions in a row; default 128, or the model's limit"
    )
    device: Free[str] = Field("auto", examples=DEVICES, description="auto | cpu | cuda | cuda:N | mps")
    precision: Precision = Field(
        "auto",
        description="bfloat16: by autocast | bfloat16-weights: also the weights that compute, beside float32 "
        "ones that are optimized | float16: by autocast, with a loss scale, for GPUs without bfloat16 (T4, "
        "V100) | auto: bfloat16 where a GPU has it, else float32",
    )
    deterministic: Free[bool] = Field(
        False,
        description="the same bits from the same call on a GPU, run again or resumed, at some speed; a CPU's "
        "are the same anyway, by the same number of threads",
    )
    data: DataSettings = DataSettings()
    text: Free[TextSettings] = TextSettings()
    model: ModelSettings = ModelSettings()
    masking: MaskingSettings = MaskingSettings()
    batch: BatchSettings = BatchSettings()
    budget: BudgetSettings = BudgetSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    speed: Free[SpeedSettings] = SpeedSettings()
    checkpoint: Free[CheckpointSettings] = CheckpointSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    logging: Free[LoggingSettings] = LoggingSettings()
    hub: Free[HubSettings] = HubSettings()


class EvaluateSettings(Section):
    """`fmlm evaluate`."""

    checkpoints: tuple[str, ...] = Field(
        description="runs, checkpoints of them, Hugging Face folders or Hub names; several are evaluated on "
        "the rows of the first"
    )
    store: str = Field(description="folder made by `fmlm tokenize`")
    revision: str | None = Field(None, description="branch, tag or commit of a Hub name")
    trust_remote_code: bool = Field(False, description="run the Python code that a checkpoint brings")
    sequence_length: Count | None = Field(
        None, description="default: the run's own, else 128 or the model's limit"
    )
    packing: Packing | None = Field(None, description="default: the run's own, else documents")
    max_rows: Count | None = Field(512, description="a fixed subset of the validation rows; null: all")
    subset_seed: Seed = Field(0, description="which rows max_rows keeps; default: the run's own, else 0")
    batch_size: Count = Field(32, description="rows forwarded at once")
    device: str = Field("auto", examples=DEVICES, description="auto | cpu | cuda | cuda:N | mps")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="as for pretrain")
    speed: ComputingSettings = ComputingSettings()


class MasksSettings(Section):
    """`fmlm masks`."""

    store: str = Field(description="folder made by `fmlm tokenize`")
    masking: MaskingSettings = MaskingSettings()
    rows: Count = Field(3, description="rows to show")
    epochs: Count | None = Field(
        None, description="passes to look at; default: until every token was seen, or 7"
    )
    seed: Seed = Field(0, description="seed: which rows, and their masks")
    split: Literal["train", "validation"] = Field("train", description="which split")
    sequence_length: Count = Field(128, description="positions in a row")
    packing: Packing = Field("documents", description="as for pretrain")
    sample: Count = Field(512, description="rows that the figures are taken from, at most")
