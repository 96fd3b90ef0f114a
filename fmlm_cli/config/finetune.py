"""Settings of `fmlm finetune` and `fmlm predict`."""

import os
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from fmlm_cli.config.publishing import HubSettings
from fmlm_cli.config.section import DEVICES, GLUE, Count, Free, Positive, Section, Seed, Share
from fmlm_cli.config.speed import ComputingSettings

ALL = "all"
METRICS = ["accuracy", "f1", "macro_f1", "micro_f1", "matthews", "pearson", "spearman"]
# Devlin et al. 2019, appendix A.3: passes over the training split.
USUAL_EPOCHS = 3
# What small sets get at least. After 3 passes over 1,000 examples BERT has not converged; with more steps it
# does, and seeds differ less (Mosbach et al. 2021; Zhang et al. 2021).
LEAST_STEPS = 500


class TaskSettings(Section):
    """Which labelled sets."""

    names: tuple[str, ...] = Field(
        (),
        examples=[*GLUE, "ax", ALL],
        description="GLUE tasks: cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli, ax, or all",
    )
    folder: str | None = Field(
        None,
        description="folder of GLUE's files, as its download script or the Hub lays them out; "
        "default: from the Hub",
    )
    train: str | None = Field(None, description="a set of your own: .jsonl, .csv, .tsv or .parquet")
    dev: str | None = Field(None, description="development split of your own set")
    test: str | None = Field(None, description="test split of your own set, if any, labelled or not")
    name: str | None = Field(
        None, description="what to call it, as its folders will be; default: its folder's name"
    )
    text_field: str | None = Field(None, description="field of the text; default: found by its name")
    text_pair_field: str | None = Field(None, description="field of a second text")
    label_field: str | None = Field(None, description="field of the label or score")
    regression: bool | None = Field(
        None, description="whether labels are scores; default: if they are numbers and not all whole"
    )
    metric: str | None = Field(
        None,
        examples=METRICS,
        description="what decides: accuracy, f1, macro_f1, micro_f1, matthews, pearson or spearman; "
        "default: macro_f1, or the mean of both correlations",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> "TaskSettings":
        of_glue = ("names", "folder")
        own_set = [name for name, value in self if value is not None and name not in of_glue]
        if self.names and own_set:
            raise ValueError(f"GLUE tasks and a set of your own ({own_set[0]}) exclude each other: keep one")
        return self


class Hyperparameters(Section):
    """How one model is fine-tuned: the axes of a grid."""

    learning_rate: Positive | None = Field(
        None, description="peak of the learning rate; default by the model's size"
    )
    batch_size: Count = Field(32, description="sequences in an optimizer step")
    epochs: Count | None = Field(
        None,
        description=f"passes over the training split; default {USUAL_EPOCHS}, and more for a small set: "
        "see min_steps",
    )
    min_steps: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="more passes where these make fewer steps (Mosbach et al. 2021); default "
        f"{LEAST_STEPS}, or none where epochs says how many passes",
    )
    warmup_share: Share = Field(0.1, description="share of the steps spent warming up")
    schedule: Literal["linear", "cosine"] = Field("linear", description="decay after the warm-up, to zero")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.01, description="not applied to biases and norms")
    betas: tuple[Share, Share] = Field((0.9, 0.999), description="AdamW's decay rates, bias-corrected")
    epsilon: Positive = Field(1e-8, description="AdamW's epsilon")
    clip: Positive | None = Field(1.0, description="largest gradient norm; null: no clipping")
    dropout: Share | None = Field(None, description="all of the model's dropout rates; default: its own")
    reinit_layers: Annotated[int, Field(ge=0)] = Field(
        0, description="top layers that are drawn afresh, with the pooler (Zhang et al. 2021)"
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="factor of the rate from each layer to the one below it"
    )

    def settled(self, learning_rate: float) -> "Hyperparameters":
        """The same with a number for all that is left open; `learning_rate`: the one for the model."""
        least = LEAST_STEPS if self.epochs is None else 0
        return self.model_copy(
            update={
                "learning_rate": learning_rate if self.learning_rate is None else self.learning_rate,
                "epochs": USUAL_EPOCHS if self.epochs is None else self.epochs,
                "min_steps": least if self.min_steps is None else self.min_steps,
            }
        )


class FinetuneSettings(Section):
    """`fmlm finetune`."""

    checkpoint: Free[tuple[str, ...]] = Field(
        min_length=1,
        description="a run, one of its checkpoints, a Hugging Face folder, or a Hub name (@REVISION); "
        "several are compared with the first, on the same tasks and seeds",
    )
    revision: Free[str | None] = Field(
        None, description="branch, tag or commit of the only checkpoint, a Hub name; becomes the commit"
    )
    trust_remote_code: Free[bool] = Field(False, description="run the Python code that a checkpoint brings")
    out: Free[str | None] = Field(None, description="folder of the results")
    tasks: Free[TaskSettings] = TaskSettings()
    training: Hyperparameters = Hyperparameters()
    grid: Free[str] = Field(
        "none",
        examples=["none", "paper"],
        description="hyperparameters to try: none | paper: those of BERT's or RoBERTa's paper | "
        "a YAML file of lists, by setting",
    )
    seeds: Free[Count] = Field(5, description="runs of each: head, order and dropout differ")
    first_seed: Free[Seed] = Field(0, description="the seeds are this and the numbers after it")
    select: Literal["best", "last"] = Field(
        "best",
        description="which epoch counts: the best on the development split (of 50 at most, where there are "
        "more) | the last",
    )
    patience: Count | None = Field(
        None, description="stop after so many evaluations without a better score; default: never"
    )
    from_mnli: Free[bool] = Field(
        False, description="begin RTE, MRPC and STS-B from the MNLI model of the same call"
    )
    max_length: Count | None = Field(
        None, description="tokens in a sequence, what is longer is cut; default 128, or the model's limit"
    )
    micro_size: Free[Count | None] = Field(
        None, description="sequences forwarded at once; default: a whole batch"
    )
    checkpoint_every_steps: Free[Count] = Field(1000, description="what an interruption can cost at most")
    device: Free[str] = Field("auto", examples=DEVICES, description="auto | cpu | cuda | cuda:N | mps")
    precision: Free[Literal["auto", "float32", "bfloat16"]] = Field("auto", description="as for pretrain")
    speed: Free[ComputingSettings] = ComputingSettings()
    hub: Free[HubSettings] = HubSettings()

    @field_validator("checkpoint", mode="before")
    @classmethod
    def _one_or_several(cls, checkpoint: Any) -> Any:
        return (checkpoint,) if isinstance(checkpoint, str) else checkpoint


class PredictSettings(Section):
    """`fmlm predict`."""

    checkpoint: str = Field(
        description="a run, one of its checkpoints, what fmlm finetune left, a Hugging Face folder, "
        "or a Hub name"
    )
    revision: str | None = Field(None, description="branch, tag or commit of a Hub name")
    trust_remote_code: bool = Field(False, description="run the Python code that a checkpoint brings")
    task: str | None = Field(None, description="which model, where fmlm finetune left several")
    texts: tuple[str, ...] = Field((), description="texts, each in quotes")
    pairs: tuple[str, ...] = Field(
        (), description="for tasks of two texts: the second one, in the order of the first ones"
    )
    file: str | None = Field(
        None, description="texts, one a line, in UTF-8; two texts are parted by a tab; - is standard input"
    )
    top: Count = Field(5, description="guesses for each mask, and labels shown")
    batch_size: Count = Field(32, description="texts forwarded at once")
    device: str = Field("auto", examples=DEVICES, description="auto | cpu | cuda | cuda:N | mps")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="as for pretrain")
    speed: ComputingSettings = ComputingSettings()

    @field_validator("texts", "pairs", mode="before")
    @classmethod
    def _in_utf8(cls, texts: Any) -> Any:
        """Texts of the command line are in UTF-8 whatever the locale says, unless they cannot be."""
        return [_from_utf8(text) if isinstance(text, str) else text for text in texts]

    @model_validator(mode="after")
    def _one_source(self) -> "PredictSettings":
        if self.file is not None and self.texts:
            raise ValueError("both TEXT and --file are given: keep one")
        if self.file is not None and self.pairs:
            raise ValueError("--pair goes with TEXT: in a file, part the two texts of a line with a tab")
        if self.file is None and not self.texts:
            raise ValueError("no text: give TEXT, or --file FILE (- is standard input)")
        if self.pairs and len(self.pairs) != len(self.texts):
            raise ValueError(f"{len(self.pairs)} --pair for {len(self.texts)} TEXT: give one for each")
        return self


def _from_utf8(word: str) -> str:
    """A word that Python has decoded by the locale's encoding, decoded from UTF-8."""
    try:
        return os.fsencode(word).decode()
    except UnicodeError:
        return word
