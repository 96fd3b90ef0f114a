"""`fmlm evaluate`: the evaluation of pre-training, for any masked LM."""

from typing import Any

from fmlm_cli.config import EvaluateSettings, PretrainSettings
from fmlm_cli.corpus.rows.reading import RowReader
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Emit, Facts, ignore
from fmlm_cli.model.build import longest_sequence
from fmlm_cli.model.checkpoints.pretrained import load_model
from fmlm_cli.model.isolation import isolates_documents
from fmlm_cli.model.masked_lm import MaskedLM
from fmlm_cli.recipes.shared.checkpoints import check_tokenizer, find_checkpoint
from fmlm_cli.recipes.shared.held_out import HeldOut
from fmlm_cli.recipes.shared.limits import resolve_length, resolve_packing
from fmlm_cli.recipes.shared.speed import settle_attention


def evaluate_checkpoint(settings: EvaluateSettings, *, emit: Emit = ignore) -> dict[str, float]:
    """Held-out loss, perplexity, accuracy and unigram loss of a checkpoint on a store's validation split.

    A run is evaluated as it evaluated itself: with its own row length, packing and subset of the rows.
    """
    trusted = settings.trust_remote_code
    origin = find_checkpoint(settings.checkpoint, revision=settings.revision, code=trusted)
    run, name = origin.settings, str(origin.adapter or origin.folder)
    runtime = Runtime.resolve(settings.device, settings.precision, threads=settings.speed.threads)
    store = TokenStore.open(settings.store, verify=("validation",))
    if not store.has("validation"):
        raise UserError(
            f"{store.root} has no validation split: tokenize with --valid SOURCE or --valid-fraction above 0"
        )
    check_tokenizer(origin, store, extended=False)
    loaded = load_model(
        origin.folder,
        name=name,
        adapter=origin.adapter,
        trust_remote_code=trusted,
        announce=lambda text: emit(Caution(text)),
    )
    model = MaskedLM(loaded)
    if model.pretrained.config.vocab_size < store.vocabulary:
        raise UserError(
            f"{name} has {model.pretrained.config.vocab_size:,} tokens, {store.root} needs "
            f"{store.vocabulary:,}"
        )
    length = settings.sequence_length or (run.sequence_length if run else None)
    length = resolve_length(length, longest_sequence(model.pretrained), name)
    packing = settings.packing or (run.data.packing if run else "documents")
    reader = RowReader(
        store,
        "validation",
        packing=resolve_packing(packing, model, length, emit),
        sequence_length=length,
        max_rows=_own(settings, run, "max_rows"),
        subset_seed=_own(settings, run, "subset_seed"),
    )
    model.to(runtime.device)  # after the probe of resolve_packing, which so runs where pre-training runs it
    settle_attention(model, runtime, length, settings.speed.attention, isolates_documents)
    held_out = HeldOut.of(store, reader, settings.batch_size)
    if not held_out.has_targets:
        raise UserError(
            f"the validation split of {store.root} is too small to mask a token of it: give more text with "
            "--valid"
        )
    scores = held_out.run(model, runtime).record
    emit(Facts(f"evaluation of {name}", _summary(scores, reader, store)))
    return scores


def _own(settings: EvaluateSettings, run: PretrainSettings | None, name: str) -> Any:
    """A setting of the evaluation: as it was given, else the run's own, else the default."""
    given = name in settings.model_fields_set
    return getattr(settings if given or run is None else run.evaluation, name)


def _summary(scores: dict[str, float], reader: RowReader, store: TokenStore) -> dict[str, str]:
    plan = reader.plan
    return {
        "data": (
            f"{store.root}, {len(reader):,} of {len(plan):,} validation rows x {plan.sequence_length}, "
            f"packing {plan.packing}"
        ),
        "loss": f"{scores['eval_loss']:.4f}",
        "perplexity": f"{scores['eval_perplexity']:,.2f}",
        "accuracy": f"{scores['eval_accuracy']:.2%}",
        "unigram loss": f"{scores['unigram_loss']:.4f} of the same targets",
    }
