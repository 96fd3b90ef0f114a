"""The checkpoints of a call: what each is called, and all that its models begin from."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fmlm_cli.config import FinetuneSettings
from fmlm_cli.corpus.tokenizer import loading as tokenizers
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Doing, Emit
from fmlm_cli.model.attention import AttentionBackend
from fmlm_cli.model.build import longest_sequence, preset_of, tokenizer_for, weights_hash
from fmlm_cli.model.classification.first_token import check_outputs
from fmlm_cli.model.classification.sequence_classifier import SequenceClassifier, classifies_alone
from fmlm_cli.model.classifier import EncoderCheckpoint
from fmlm_cli.recipes.finetuning.data import plain_name
from fmlm_cli.recipes.finetuning.grid import Point, find_points
from fmlm_cli.recipes.shared.checkpoints import Origin, check_vocabulary, find_checkpoint
from fmlm_cli.recipes.shared.limits import resolve_length
from fmlm_cli.recipes.shared.speed import settle_attention

_FINAL = "final"  # where a run's model lies, and so no name for it
_AT_STEP = "step-"


@dataclass(frozen=True)
class Given:
    """A checkpoint as it was given: NAME=PATH or PATH, of a Hub name perhaps with @REVISION."""

    path: str
    name: str | None = None
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Given":
        """What a text says. A folder's own name may have = or @ in it."""
        if os.path.lexists(text):
            return cls(text)
        before, equals, after = text.partition("=")
        name, path = (before, after) if equals and "/" not in before else (None, text)
        if name is not None and not (name and path):
            raise UserError(f"--from {text}: write it as --from name=checkpoint")
        hub_name, at, revision = path.rpartition("@")
        if not at or not revision or revision.startswith(_AT_STEP) or os.path.lexists(path):
            return cls(path, name)
        return cls(hub_name, name, revision)


def name_checkpoints(given: Sequence[Given]) -> dict[str, Given]:
    """Checkpoints by name: the one they were given, or what differs in their paths.

    `UserError` where two would have the same name, or one that no folder can have.
    """
    named: dict[str, Given] = {}
    for own, checkpoint in zip(_by_paths([one.path for one in given]), given, strict=True):
        name = own if checkpoint.name is None else checkpoint.name
        if not plain_name(name):
            raise UserError(
                f"the checkpoint {checkpoint.path} cannot be called {name!r}, as its folders will be: give "
                "it a plain name, as in --from name=checkpoint"
            )
        if name in named:
            raise UserError(
                f"two checkpoints are called '{name}' ({named[name].path} and {checkpoint.path}): give each "
                "a name, as in --from name=checkpoint"
            )
        named[name] = checkpoint
    return named


def _by_paths(paths: Sequence[str]) -> list[str]:
    """Names by what differs in the paths: their last parts where these do, else all that is not shared."""
    whole = [_parts(path) for path in paths]
    own = list(whole)
    while all(len(parts) > 1 for parts in own) and len({parts[0] for parts in own}) == 1:
        own = [parts[1:] for parts in own]
    while all(len(parts) > 1 for parts in own) and len({parts[-1] for parts in own}) == 1:
        own = [parts[:-1] for parts in own]
    last = [parts[-1] for parts in own]
    ways = (last, *(["-".join(parts) for parts in longer] for longer in (own, whole)))
    return next((names for names in ways if len(set(names)) == len(names)), last)


def _parts(path: str) -> list[str]:
    """A path's folders; of a run's model without the last one."""
    parts = [part for part in Path(path).parts if part not in ("/", "~")]
    if not parts or ".." in parts:
        parts = list(Path(path).absolute().resolve().parts[1:])
    parts = [part.replace("=", "-") for part in parts]  # a name ends at the first one, where it is read again
    while len(parts) > 1 and parts[-1] == _FINAL:
        parts.pop()
    return parts or [path]


@dataclass(frozen=True)
class ReadCheckpoint:
    """A checkpoint that was read. `probe`: a classifier made of it, by which it is known to be whole."""

    name: str
    origin: Origin
    encoder: EncoderCheckpoint
    tokenizer: PreTrainedTokenizerFast
    probe: PreTrainedModel

    def length(self, asked: int | None) -> int:
        """Tokens in a sequence: what was asked for, if it has so many positions, or the usual number."""
        return resolve_length(asked, longest_sequence(self.probe), self.origin.name, "max_length")


@dataclass(frozen=True)
class Candidate:
    """A checkpoint with all that decides how its models are fine-tuned.

    `name`: what it is called beside others. `weights`: their hash. `points`: of its grid. `backends`: how
    its models attend, by their dropout; `attention`: the same in words.
    """

    name: str
    origin: Origin
    encoder: EncoderCheckpoint
    tokenizer: PreTrainedTokenizerFast
    weights: str
    points: Sequence[Point]
    backends: Mapping[float | None, type[AttentionBackend]]
    attention: str

    @property
    def model_type(self) -> str:
        """Its architecture."""
        return str(self.encoder.config.model_type)

    @cached_property
    def tokenizer_fingerprint(self) -> str:
        """Stands for how its texts become tokens."""
        return tokenizers.fingerprint(self.tokenizer)


def read_checkpoint(name: str, given: Given, settings: FinetuneSettings, emit: Emit) -> ReadCheckpoint:
    """Read a checkpoint; what is wrong with it is known before anything is written."""
    emit(Doing(f"loading {name}"))
    origin = find_checkpoint(given.path, revision=given.revision, code=settings.trust_remote_code, emit=emit)
    tokenizer = tokenizers.load_tokenizer(str(origin.tokenizer_folder))
    encoder = EncoderCheckpoint.read(
        origin.folder,
        name=origin.name,
        adapter=origin.adapter,
        trust_remote_code=settings.trust_remote_code,
        announce=lambda text: emit(Caution(text)),
    )
    probe = encoder.classifier(
        ["0", "1"],
        seed=0,
        dropout=settings.training.dropout,
        reinit_layers=settings.training.reinit_layers,
    ).model
    check_vocabulary(probe, tokenizer, origin.name)
    check_outputs(probe)
    return ReadCheckpoint(name, origin, encoder, tokenizer, probe)


def make_candidate(read: ReadCheckpoint, settings: FinetuneSettings, runtime: Runtime) -> Candidate:
    """Make every choice that is a checkpoint's own; the settings' length is settled."""
    length = settings.max_length
    assert length is not None
    rate = preset_of(read.probe.config).finetune_rate
    points = find_points(settings, read.probe.config.model_type, rate)
    backends, attention = _settle_attention(read.encoder, settings, points, runtime)
    trained = max(length, read.tokenizer.model_max_length)
    return Candidate(
        read.name,
        read.origin,
        read.encoder,
        tokenizer_for(read.probe, read.tokenizer, trained=trained),
        weights_hash(read.encoder.tensors),
        points,
        backends,
        attention,
    )


def _settle_attention(
    encoder: EncoderCheckpoint, settings: FinetuneSettings, points: Sequence[Point], runtime: Runtime
) -> tuple[dict[float | None, type[AttentionBackend]], str]:
    """How the models of each dropout attend, for not every kernel has it; and in words."""
    assert settings.max_length is not None
    backends: dict[float | None, type[AttentionBackend]] = {}
    words: list[str] = []
    for dropout in dict.fromkeys(point.training.dropout for point in points):
        model = SequenceClassifier(encoder.classifier(["0", "1"], seed=0, dropout=dropout).model)
        asked, length = settings.speed.attention, settings.max_length
        words.append(settle_attention(model, runtime, length, asked, classifies_alone))
        backends[dropout] = type(model.attention)
    return backends, "; ".join(dict.fromkeys(words))
