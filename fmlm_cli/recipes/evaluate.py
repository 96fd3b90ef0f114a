"""`fmlm evaluate`: the evaluation of pre-training, for any masked LM."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fmlm_cli.config import EvaluateSettings, Packing, PretrainSettings
from fmlm_cli.corpus.rows.reading import RowReader
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Doing, Emit, Facts, Grid, Progress, ignore
from fmlm_cli.model.build import longest_sequence
from fmlm_cli.model.checkpoints.pretrained import load_model
from fmlm_cli.model.isolation import isolates_documents
from fmlm_cli.model.masked_lm import MaskedLM
from fmlm_cli.recipes.shared.checkpoints import Origin, check_tokenizer, find_checkpoint
from fmlm_cli.recipes.shared.held_out import HeldOut
from fmlm_cli.recipes.shared.limits import resolve_length, resolve_packing
from fmlm_cli.recipes.shared.speed import settle_attention


@dataclass(frozen=True)
class Evaluation:
    """How a checkpoint does on some rows. `scores`: losses in nats a masked token, and what follows."""

    checkpoint: str
    store: str
    rows: int
    rows_of_split: int
    sequence_length: int
    packing: str
    scores: Mapping[str, float]


@dataclass(frozen=True)
class _Rows:
    """Which rows all checkpoints are evaluated on, as far as it is decided."""

    sequence_length: int | None
    packing: Packing
    max_rows: int | None
    subset_seed: int


def evaluate_checkpoints(settings: EvaluateSettings, *, emit: Emit = ignore) -> list[Evaluation]:
    """Held-out loss, perplexity, accuracy and unigram loss of checkpoints on a store's validation split.

    A run is evaluated as it evaluated itself: with its own row length, packing and subset of the rows.
    Several checkpoints are evaluated on the same rows under the same masks, those of the first.
    """
    if not settings.checkpoints:
        raise UserError("no checkpoint: give --from, a run, a Hugging Face folder or a Hub name")
    trusted = settings.trust_remote_code
    origins = [
        find_checkpoint(name, revision=settings.revision, code=trusted, emit=emit)
        for name in settings.checkpoints
    ]
    store = TokenStore.open(settings.store, verify=("validation",))
    if not store.has("validation"):
        raise UserError(
            f"{store.root} has no validation split: tokenize with --valid SOURCE or --valid-fraction above 0"
        )
    for origin in origins:
        check_tokenizer(origin, store, extended=False)
    wanted = _rows_of(settings, origins[0].settings)
    found: list[Evaluation] = []
    for origin in origins:
        found.append(_evaluate(origin, settings, wanted, store, emit))
        wanted = replace(wanted, sequence_length=found[0].sequence_length)
        if len(origins) == 1:
            emit(Facts(f"evaluation of {found[0].checkpoint}", _summary(found[0])))
    if len(origins) > 1:
        _tell_together(found, emit)
    return found


def _rows_of(settings: EvaluateSettings, run: PretrainSettings | None) -> _Rows:
    """As it was given, else the run's own, else the default."""

    def own(name: str) -> Any:
        given = name in settings.model_fields_set
        return getattr(settings if given or run is None else run.evaluation, name)

    length = settings.sequence_length or (run.sequence_length if run else None)
    packing = settings.packing or (run.data.packing if run else "documents")
    return _Rows(length, packing, own("max_rows"), own("subset_seed"))


def _evaluate(
    origin: Origin, settings: EvaluateSettings, wanted: _Rows, store: TokenStore, emit: Emit
) -> Evaluation:
    """One checkpoint on these rows."""
    name = str(origin.adapter or origin.folder)
    emit(Doing(f"loading {name}"))
    runtime = Runtime.resolve(settings.device, settings.precision, threads=settings.speed.threads)
    loaded = load_model(
        origin.folder,
        name=name,
        adapter=origin.adapter,
        trust_remote_code=settings.trust_remote_code,
        announce=lambda text: emit(Caution(text)),
    )
    model = MaskedLM(loaded)
    if model.pretrained.config.vocab_size < store.vocabulary:
        raise UserError(
            f"{name} has {model.pretrained.config.vocab_size:,} tokens, {store.root} needs "
            f"{store.vocabulary:,}: they do not belong together"
        )
    length = resolve_length(wanted.sequence_length, longest_sequence(model.pretrained), name)
    reader = RowReader(
        store,
        "validation",
        packing=resolve_packing(wanted.packing, model, length, emit),
        sequence_length=length,
        max_rows=wanted.max_rows,
        subset_seed=wanted.subset_seed,
    )
    model.to(runtime.device)  # after the probe of resolve_packing, which so runs where pre-training runs it
    settle_attention(model, runtime, length, settings.speed.attention, isolates_documents)
    held_out = HeldOut.of(store, reader, settings.batch_size)
    if not held_out.has_targets:
        raise UserError(
            f"the validation split of {store.root} is too small to mask a token of it: give more text with "
            "--valid"
        )
    task, total = f"evaluating {name}", len(reader)
    scores = held_out.run(
        model, runtime, progress=lambda done: emit(Progress(task, done, total, "rows"))
    ).record
    plan = reader.plan
    return Evaluation(
        name, str(store.root), len(reader), len(plan), plan.sequence_length, plan.packing, scores
    )


def _data_line(evaluation: Evaluation) -> str:
    return (
        f"{evaluation.store}, {evaluation.rows:,} of {evaluation.rows_of_split:,} validation rows x "
        f"{evaluation.sequence_length}, packing {evaluation.packing}"
    )


def _summary(evaluation: Evaluation) -> dict[str, str]:
    scores = evaluation.scores
    return {
        "data": _data_line(evaluation),
        "loss": f"{scores['eval_loss']:.4f}",
        "perplexity": f"{scores['eval_perplexity']:,.2f}",
        "accuracy": f"{scores['eval_accuracy']:.2%}",
        "unigram loss": f"{scores['unigram_loss']:.4f} of the same targets",
    }


def _tell_together(found: Sequence[Evaluation], emit: Emit) -> None:
    """A table of all, each beside the first."""
    first = found[0]
    rows = [
        (
            each.checkpoint,
            f"{each.scores['eval_loss']:.4f}",
            f"{each.scores['eval_loss'] - first.scores['eval_loss']:+.4f}" if each is not first else "",
            f"{each.scores['eval_perplexity']:,.2f}",
            f"{each.scores['eval_accuracy']:.2%}",
        )
        for each in found
    ]
    rows.append(("(word frequencies alone)", f"{first.scores['unigram_loss']:.4f}", "", "", ""))
    emit(Grid(_data_line(first), ("", "loss", "minus the first", "perplexity", "accuracy"), rows))
    for each in found:
        if each.packing != first.packing:
            emit(Caution(f"{each.checkpoint} was evaluated with packing {each.packing}: its rows are others"))
