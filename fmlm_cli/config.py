"""Every setting: typed, documented, validated. YAML in, resolved YAML out.

Settings flow one way: defaults < YAML file < command-line flags < `--set a.b=c`. Unknown names are refused with
the nearest known one. A value that is None is decided later, from the data or the model, and is written into
the run's `config.yaml` as what it became; that file is itself a valid input.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fmlm_cli.errors import UserError, nearest

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """A group of settings. Immutable; unknown names are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class DataSettings(Section):
    """Which tokens, and how they become rows."""

    store: str | None = Field(None, description="folder made by `fmlm tokenize`")
    packing: Literal["documents", "concat", "none"] = Field(
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


class MaskingSettings(Section):
    """Which tokens are predicted when."""

    strategy: str = Field("fully-explored", description="random | fully-explored")
    segments: Count | None = Field(None, description="K: masks that together cover a sequence; default 7")
    rate: Positive | None = Field(None, description="share of tokens in a mask; default 1/segments")
    scope: Literal["epoch", "batch"] | None = Field(
        None, description="fully-explored: one segment a pass over the data (default) | all K in one step"
    )
    masks_per_sequence: Count | None = Field(
        None, description="random: masks of one sequence in one step (default 1)"
    )
    corruption: CorruptionSettings = CorruptionSettings()


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
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="weights, order, masks and dropout")
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
    packing: Literal["documents", "concat", "none"] | None = Field(
        None, description="default: the run's own, else documents"
    )
    max_rows: Count | None = Field(512, description="a fixed subset of the validation rows; null: all")
    batch_size: Count = Field(32, description="rows forwarded at once")
    device: str = Field("auto", description="auto | cpu | cuda | cuda:N | mps")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="as for pretrain")


class TokenizeSettings(Section):
    """`fmlm tokenize`."""

    sources: tuple[str, ...] = Field(description="files, folders, globs, or python-docs")
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

    @model_validator(mode="after")
    def _one_tokenizer(self) -> "TokenizeSettings":
        if (self.tokenizer is None) == (self.train_tokenizer is None):
            raise ValueError(
                "say which tokenizer: --tokenizer FOLDER|vocab.txt|HUB-NAME, or --train-tokenizer wordpiece|bpe"
            )
        return self


S = TypeVar("S", bound=Section)


class _Loader(yaml.SafeLoader):
    """YAML without dates: a run's folder may be called 2024-05-01."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as the base class declares it
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_TOGETHER = ("budget",)  # groups of alternatives: a later layer replaces the whole group


def setting_names(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings under a section."""
    return (name for name, _, _ in describe_settings(section, prefix))


def describe_settings(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Dotted name, default and description of every setting under a section."""
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from describe_settings(inner, f"{prefix}{name}.")
        else:
            default = "" if field.default is None or field.is_required() else str(field.default)
            yield prefix + name, default, field.description or ""


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a.b": 1}` as `{"a": {"b": 1}}`; values that are None are left out."""
    tree: dict[str, Any] = {}
    for dotted, value in flat.items():
        if value is not None:
            *path, last = dotted.split(".")
            node = tree
            for part in path:
                node = node.setdefault(part, {})
            node[last] = value
    return tree


def parse_assignments(assignments: Sequence[str], section: type[Section]) -> dict[str, Any]:
    """`["a.b=c"]`, as given to --set, as a tree; values are read as YAML."""
    tree: dict[str, Any] = {}
    names = set(setting_names(section))
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(f"--set {assignment}: write it as --set name=value")
        if name not in names and not any(known.startswith(f"{name}.") for known in names):
            raise _unknown(name, f"--set {assignment}", section)
        try:
            value = yaml.load(text, Loader=_Loader)
        except (yaml.YAMLError, ValueError):
            raise UserError(f"--set {assignment}: '{text}' is not a YAML value") from None
        path = name.split(".")
        for part in reversed(path):
            value = {part: value}
        tree = merge(tree, value, whole=())
    return tree


def merge(
    below: Mapping[str, Any], above: Mapping[str, Any], whole: Sequence[str] = _TOGETHER
) -> dict[str, Any]:
    """Two trees of settings as one; what stands in `above` wins."""
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping) and name not in whole
        merged[name] = merge(old, value, whole) if both else value  # type: ignore[arg-type]
    return merged


def read_yaml(path: str | Path, section: type[Section]) -> dict[str, Any]:
    """A tree of settings from a YAML file. Names and values are checked here, where the line is known."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=_Loader)
        tree = yaml.load(text, Loader=_Loader)
    except FileNotFoundError:
        raise UserError(f"no such configuration file: {path}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, not a configuration file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a UTF-8 text file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{path}{line}: not valid YAML ({reason})") from None
    except ValueError as error:  # an explicit tag on a value that does not fit, such as `!!int x`
        raise UserError(f"{path}: not valid YAML ({error})") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(
            f"{path}: settings are written as `name: value`, this file holds a {type(tree).__name__}"
        )
    assert root is not None
    try:
        lines = dict(_lines(root, path))
    except RecursionError:
        raise UserError(f"{path}: not valid settings (an alias that holds itself)") from None
    _check_names(tree, section, lines, path)
    _validate(section, tree, lambda name: f"{path}:{_line_of(name, lines)} ({name})")
    return tree


def _lines(node: yaml.Node, path: Path, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Dotted names and the lines they stand on; a name given twice is refused (YAML would take the last)."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            if "." in str(key.value):
                raise UserError(
                    f"{path}:{key.start_mark.line + 1}: '{key.value}': in a file, settings are nested, not dotted: "
                    f"write `{key.value.partition('.')[0]}:` and, indented below it, the rest"
                )
            if name in seen:
                raise UserError(f"{path}:{key.start_mark.line + 1}: setting '{name}' is given twice")
            seen.add(name)
            yield name, key.start_mark.line + 1
            yield from _lines(value, path, f"{name}.")


def _line_of(name: str, lines: Mapping[str, int]) -> int:
    """The line of a setting, or of the nearest group around it."""
    while name and name not in lines:
        name = name.rpartition(".")[0]
    return lines.get(name, 1)


def _check_names(
    tree: Mapping[str, Any], section: type[BaseModel], lines: Mapping[str, int], path: Path
) -> None:
    known = set(setting_names(section))
    groups = {name.rpartition(".")[0] for name in known}
    for name in lines:
        if name not in known and name not in groups and not any(name.startswith(f"{k}.") for k in known):
            raise _unknown(name, f"{path}:{lines[name]}", section)


def _unknown(name: str, where: str, section: type[BaseModel]) -> UserError:
    names = list(setting_names(section))
    same_last = [known for known in names if known.rpartition(".")[2] == name.rpartition(".")[2]]
    close = nearest(name, names) or (same_last[0] if same_last else None)
    hint = f"did you mean '{close}'?" if close else f"known are {', '.join(names)}"
    return UserError(f"{where}: unknown setting '{name}'; {hint}")


def build(section: type[S], *trees: Mapping[str, Any]) -> S:
    """Validated settings from trees, later ones winning. Errors name the setting."""
    tree: dict[str, Any] = {}
    for above in trees:
        tree = merge(tree, above)
    return _validate(section, tree, lambda name: f"setting '{name}'" if name else "settings")


def _validate(section: type[S], tree: Mapping[str, Any], where: Callable[[str], str]) -> S:
    """Validated settings, or the first problem as one line; `where` says where a setting was given."""
    try:
        return section.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise _unknown(name, where(name), section) from None
        message = first["msg"].removeprefix("Value error, ")
        given = f", not {first['input']!r}" if first["type"] not in ("value_error", "missing") else ""
        raise UserError(f"{where(name)}: {message[0].lower()}{message[1:]}{given}") from None


def choices(section: type[Section], name: str) -> tuple[str, ...]:
    """The values that a setting with a fixed choice accepts."""
    annotation = section.model_fields[name].annotation
    return tuple(
        value
        for part in (annotation, *get_args(annotation))
        for value in get_args(part)
        if isinstance(value, str)
    )


def to_yaml(settings: Section) -> str:
    """Settings as YAML, in the order they are defined."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
