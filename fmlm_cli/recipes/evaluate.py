"""`fmlm evaluate`: the evaluation of pre-training, for any masked LM."""

from pathlib import Path

from fmlm_cli import storage
from fmlm_cli.config import EvaluateSettings, PretrainSettings
from fmlm_cli.corpus import tokenizers
from fmlm_cli.corpus.rows import RowReader
from fmlm_cli.corpus.store import TokenStore
from fmlm_cli.engine.checkpoint import complete_checkpoints
from fmlm_cli.engine.device import resolve_device, resolve_precision
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit, Table, ignore
from fmlm_cli.model.build import load_model, longest_sequence
from fmlm_cli.model.masked_lm import MaskedLM
from fmlm_cli.recipes.evaluation import HeldOut
from fmlm_cli.recipes.resolve import resolve_length, resolve_packing, saved_settings


def evaluate(settings: EvaluateSettings, *, emit: Emit = ignore) -> dict[str, float]:
    """Held-out loss, perplexity, accuracy and unigram loss of a checkpoint on a store's validation split.

    A run is evaluated as it evaluated itself: with its own row length, packing and number of rows.
    """
    folder, run = find_checkpoint(settings.checkpoint)
    device = resolve_device(settings.device)
    precision = resolve_precision(settings.precision, device)
    store = TokenStore.open(settings.store, verify=("validation",))
    if not store.has("validation"):
        raise UserError(
            f"{store.root} has no validation split: tokenize with --valid SOURCE or --valid-fraction above 0"
        )
    check_tokenizer(folder, store)
    model = MaskedLM(load_model(folder))
    if model.pretrained.config.vocab_size < store.vocabulary:
        raise UserError(
            f"{folder} has {model.pretrained.config.vocab_size:,} tokens, {store.root} needs {store.vocabulary:,}"
        )
    asked = settings.sequence_length or (run.sequence_length if run else None)
    length = resolve_length(asked, longest_sequence(model.pretrained), folder)
    packing = settings.packing or (run.data.packing if run else "documents")
    reader = RowReader(
        store,
        "validation",
        packing=resolve_packing(packing, model, length, emit),
        sequence_length=length,
        max_rows=settings.max_rows
        if "max_rows" in settings.model_fields_set or run is None
        else run.evaluation.max_rows,
    )
    model.to(device)  # after the probe of resolve_packing, which so runs where pre-training runs it
    held_out = HeldOut.of(store, reader, settings.batch_size)
    if not held_out.has_targets:
        raise UserError(
            f"the validation split of {store.root} is too small to mask a token of it: give more text with --valid"
        )
    scores = held_out.run(model, device, precision)
    emit(Table(f"evaluation of {folder}", _summary(scores, reader, store)))
    return scores


def find_checkpoint(name: str) -> tuple[str, PretrainSettings | None]:
    """The model folder (or Hub name) that a name stands for, and the settings of the run it belongs to, if any.

    A run stands for its final model, or for its newest checkpoint while it has no final one.
    """
    root = Path(name)
    run = storage.RunDirectory(root)
    if run.config.is_file():
        settings = saved_settings(run)
        if run.is_finished:
            return str(run.final), settings
        kept = complete_checkpoints(run.checkpoints)
        if not kept:
            raise UserError(
                f"{root} has neither a final model nor a checkpoint yet: let it train on with --resume"
            )
        return str(kept[-1][1]), settings
    for owner in (storage.RunDirectory(root.parent), storage.RunDirectory(root.parent.parent)):
        if (
            root.is_dir()
            and owner.config.is_file()
            and (root == owner.final or root.parent == owner.checkpoints)
        ):
            return name, saved_settings(owner)
    if not root.exists() and (len(root.parts) > 2 or name.startswith((".", "/", "~"))):
        raise UserError(f"no such checkpoint: {name}")
    return name, None


def check_tokenizer(checkpoint: str, store: TokenStore) -> None:
    """Refuse a store whose ids mean other tokens than the model's."""
    own = tokenizers.load_tokenizer(checkpoint)
    if tokenizers.fingerprint(own) != store.manifest["tokenizer"]["fingerprint"]:
        raise UserError(
            f"{store.root} was made with another tokenizer than {checkpoint}'s: tokenize the text with `--tokenizer {checkpoint}`"
        )


def _summary(scores: dict[str, float], reader: RowReader, store: TokenStore) -> dict[str, str]:
    plan = reader.plan
    return {
        "data": f"{store.root}, {len(reader):,} of {len(plan):,} validation rows x {plan.sequence_length}, packing {plan.packing}",
        "loss": f"{scores['eval_loss']:.4f}",
        "perplexity": f"{scores['eval_perplexity']:,.2f}",
        "accuracy": f"{scores['eval_accuracy']:.2%}",
        "unigram loss": f"{scores['unigram_loss']:.4f} of the same targets",
    }
