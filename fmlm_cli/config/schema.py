"""Every setting: its name, type, default and meaning.

A value that is None is decided later, from the data or the model, and is written into the run's `config.yaml`
as what it became.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Packing = Literal["documents", "concat", "none"]


class Section(BaseModel):
    """A group of settings. Immutable; unknown names are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class DataSettings(Section):
    """Which tokens, and how they become rows."""

    store: str | None = Field(None, description="folder made by `fmlm tokenize`")
    packing: Packing = Field(
        "documents",
        description="documents share rows without seeing each other | continuous text | one to a row",
    )
    max_rows: Count | None = Field(
        None, description="train on a fixed subset of this many rows; default: all"
    )
    verify: bool = Field(True, description="check the store's hashes before training")


class ModelSettings(Section):
    """What is trained."""

    name: str = Field("bert-mini", description="a preset, or the path of a Hugging Face config.json")
    dropout: Share = Field(0.0, description="all of the model's dropout rates; 0 is best from scratch")
    unigram_bias: bool = Field(
        True,
        description="start the head's bias at the log frequencies of the tokens, so that training begins there",
    )


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
        description="random, whole-word, span, pmi, fully-explored, fully-explored-word, -span or -pmi, or package.module:object",
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
        description="random exploration: rate * n tokens in each mask | every unit masked with probability rate",
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
    micro_size: Count | None = Field(
        None,
        description="rows forwarded at once; changes memory, not results (but for dropout's draws); default min(size, 32)",
    )


class BudgetSettings(Section):
    """How long to train: one of the three."""

    steps: Count | None = Field(None, description="optimizer steps")
    tokens: Positive | None = Field(None, description="tokens forwarded, padding not counted")
    epochs: Positive | None = Field(None, description="passes over the rows")


class OptimizerSettings(Section):
    """AdamW and its schedule."""

    learning_rate: Positive | None = Field(None, description="peak; default by the model's size")
    schedule: Literal["linear", "cosine"] = Field("linear", description="decay after warm-up")
    warmup_share: Share = Field(0.06, description="share of the steps spent warming up")
    final_share: Share = Field(0.0, description="learning rate at the end, as a share of the peak")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.01, description="not applied to biases and norms")
    betas: tuple[Share, Share] = Field((0.9, 0.98), description="AdamW's decay rates")
    epsilon: Positive = Field(1e-6, description="AdamW's epsilon")
    clip: Positive | None = Field(1.0, description="largest gradient norm; null: no clipping")


class CheckpointSettings(Section):
    """What makes a run survive."""

    every_steps: Count | None = Field(None, description="default: a tenth of the run, at most 1,000")
    keep: Count = Field(2, description="latest checkpoints kept")


class EvaluationSettings(Section):
    """Held-out loss on fixed masks, the same for every strategy and seed."""

    every_steps: Count | None = Field(None, description="default: a tenth of the run, at most 5,000")
    max_rows: Count | None = Field(512, description="a fixed subset of the validation rows; null: all")


class LoggingSettings(Section):
    """Training records in metrics.jsonl."""

    every_steps: Count | None = Field(None, description="default: every step up to 5,000, then fewer")


class PretrainSettings(Section):
    """`fmlm pretrain`."""

    out: str | None = Field(None, description="the run's folder")
    seed: Seed = Field(0, description="weights, order, masks and dropout")
    sequence_length: Count | None = Field(
        None, description="positions in a row; default 128, or the model's limit"
    )
    device: str = Field("auto", description="auto | cpu | cuda | cuda:N | mps")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 autocast where a GPU has it, else float32"
    )
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    masking: MaskingSettings = MaskingSettings()
    batch: BatchSettings = BatchSettings()
    budget: BudgetSettings = BudgetSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    logging: LoggingSettings = LoggingSettings()


class EvaluateSettings(Section):
    """`fmlm evaluate`."""

    checkpoint: str = Field(description="a run, one of its checkpoints, a Hugging Face folder, or a Hub name")
    store: str = Field(description="folder made by `fmlm tokenize`")
    sequence_length: Count | None = Field(
        None, description="default: the run's own, else 128 or the model's limit"
    )
    packing: Packing | None = Field(None, description="default: the run's own, else documents")
    max_rows: Count | None = Field(512, description="a fixed subset of the validation rows; null: all")
    batch_size: Count = Field(32, description="rows forwarded at once")
    device: str = Field("auto", description="auto | cpu | cuda | cuda:N | mps")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="as for pretrain")


class MasksSettings(Section):
    """`fmlm masks`."""

    store: str = Field(description="folder made by `fmlm tokenize`")
    masking: MaskingSettings = MaskingSettings()
    rows: Count = Field(3, description="rows to show")
    epochs: Count | None = Field(None, description="passes to look at; default: a cycle, or 7")
    seed: Seed = Field(0, description="which rows, and their masks")
    split: Literal["train", "validation"] = Field("train", description="which split")
    sequence_length: Count = Field(128, description="positions in a row")
    packing: Packing = Field("documents", description="as for pretrain")
    sample: Count = Field(512, description="rows that the figures are taken from, at most")


class TokenizeSettings(Section):
    """`fmlm tokenize`."""

    sources: tuple[str, ...] = Field((), description="files, folders, globs, or python-docs")
    out: str = Field(description="the store's folder")
    documents: Literal["auto", "blank-line", "line", "file"] = Field(
        "auto", description="what a document is in .txt"
    )
    text_field: str = Field("text", description="field of a .jsonl line that holds the text")
    on_bad_text: Literal["stop", "skip", "replace"] = Field(
        "stop", description="what to do with invalid UTF-8"
    )
    tokenizer: str | None = Field(None, description="folder, vocab.txt, tokenizer.json or Hub name")
    train_tokenizer: Literal["wordpiece", "bpe"] | None = Field(None, description="learn one from the text")
    vocab_size: Annotated[int, Field(ge=8)] = Field(8192, description="of the tokenizer that is learnt")
    lowercase: bool = Field(False, description="lower-case text, for a tokenizer that is learnt")
    valid: tuple[str, ...] = Field((), description="sources of the validation split")
    valid_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.01, description="else: share of the documents, chosen by their contents; at least one"
    )
    pmi: bool = Field(False, description="find collocations, for masking pmi and fully-explored-pmi")
    pmi_size: Count | None = Field(
        None, description="collocations to keep; default: enough for half the words"
    )

    @model_validator(mode="after")
    def _sources_or_store(self) -> "TokenizeSettings":
        if not self.sources and not self.pmi:
            raise ValueError("no text: give SOURCE, files, folders, globs or python-docs")
        if self.pmi_size is not None and not self.pmi:
            raise ValueError("--pmi-size needs --pmi")
        others = self.model_fields_set - {"out", "sources", "pmi", "pmi_size"}
        if not self.sources and any(getattr(self, name) for name in others):
            raise ValueError(
                "without SOURCE, --pmi works on the store that --out names, and takes no other options"
            )
        return self

    @model_validator(mode="after")
    def _one_tokenizer(self) -> "TokenizeSettings":
        if not self.sources:
            return self
        if (self.tokenizer is None) == (self.train_tokenizer is None):
            raise ValueError(
                "say which tokenizer: --tokenizer FOLDER|vocab.txt|HUB-NAME, or --train-tokenizer wordpiece|bpe"
            )
        return self
