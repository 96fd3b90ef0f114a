"""`fmlm continue`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fmlm_cli.cli.flags import BUDGET, Flag, Shortcut
from fmlm_cli.cli.options import (
    AllowChanges,
    DryRun,
    Overwrite,
    PricePerHour,
    Processes,
    Resume,
    with_options,
)
from fmlm_cli.config import PretrainSettings, saved_settings
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit
from fmlm_cli.storage import MANIFEST, RUN_CONFIG, kind_of


def _stores_or_text(texts: Sequence[str]) -> Mapping[str, Any]:
    """--data as stores or as text, by what is there."""
    stores = [text for text in texts if _is_store(text)]
    if not stores:
        return {"text.sources": texts}
    if len(stores) < len(texts):
        no_store = next(text for text in texts if text not in stores)
        raise UserError(f"--data {no_store} is no store, and {stores[0]} is one: give stores, or text")
    return {"data.stores": stores}


def _is_store(text: str) -> bool:
    """Whether it names a store, or anything else that fmlm has made, which is refused as no store is."""
    paths = [Path(path) for path in (text, text.rpartition(":")[0] or text)]
    return any((path / MANIFEST).is_file() or kind_of(path) is not None for path in paths)


def _decay_only(given: bool) -> Mapping[str, Any]:
    return {
        "optimizer.schedule": "wsd",
        "optimizer.warmup_share": 0.0,
        "optimizer.decay_share": 1.0,
        "optimizer.carry_over": True,
    }


def _started_from_one(out: str | None) -> bool:
    """Whether a run that is to be resumed was started from a checkpoint."""
    config = Path(out or "", RUN_CONFIG)
    return config.is_file() and saved_settings(PretrainSettings, config).model.checkpoint is not None


@with_options(
    PretrainSettings,
    Flag("--from", "model.checkpoint", metavar="RUN[@step-N]|FOLDER|HUB-NAME"),
    Shortcut(
        "--data",
        list[str],
        "Stores of the checkpoint's tokenizer, or text (files, folders, globs), which is tokenized into "
        "RUN.store. May be repeated.",
        _stores_or_text,
        metavar="STORE[:WEIGHT]|SOURCE",
        panel="Data",
    ),
    Flag("--masking", "masking.strategy", metavar="STRATEGY"),
    Flag("--out", "out", metavar="RUN"),
    Flag("--valid", "text.valid", metavar="SOURCE"),
    Flag("--valid-fraction", "text.valid_fraction"),
    Flag("--format", "text.format"),
    Flag("--split", "text.split"),
    Flag("--data-revision", "text.revision"),
    Flag("--documents", "text.documents"),
    Flag("--text-field", "text.text_field"),
    Flag("--on-bad-text", "text.on_bad_text"),
    Flag("--max-document-chars", "text.max_document_chars", metavar="N"),
    Flag("--on-long-document", "text.on_long_document"),
    Flag("--min-chars", "text.min_chars", metavar="N"),
    Flag("--max-chars", "text.max_chars", metavar="N"),
    Flag("--dedup", "text.dedup"),
    Flag("--workers", "text.workers", metavar="N"),
    Flag("--add-tokens", "text.add_tokens", metavar="FILE"),
    Flag("--extend-vocab", "text.extend_vocab", metavar="N"),
    Flag("--replay", "data.replay", metavar="STORE:SHARE"),
    Flag("--eval", "evaluation.stores", metavar="NAME=STORE"),
    BUDGET,
    Flag("--steps", "budget.steps"),
    Flag("--tokens", "budget.tokens"),
    Flag("--epochs", "budget.epochs"),
    Shortcut(
        "--decay-only",
        bool,
        "Let the learning rate of a run fall from where it stands to 0, with its optimizer's state.",
        _decay_only,
        panel="Training",
    ),
    Flag("--schedule", "optimizer.schedule"),  # after --decay-only, which it may change
    Flag("--head-warmup", "optimizer.head_warmup_steps", metavar="STEPS"),
    Flag("--freeze", "model.freeze", metavar="PARTS", commas=True),
    Flag("--lora", "model.lora.rank", metavar="RANK"),
    Flag("--max-positions", "model.max_positions"),
    Flag("--keep-unused", "model.keep_unused"),
    Flag("--revision", "model.revision"),
    Flag("--trust-remote-code", "model.trust_remote_code"),
    Flag("--log", "logging.to", metavar="tensorboard|wandb|trackio"),
    Flag("--seed", "seed"),
    Flag("--deterministic", "deterministic"),
    Flag("--threads", "speed.threads"),
    from_file=True,
    limited=True,
    needs=("--from", "--data", "--out", "--budget|--steps|--tokens|--epochs"),
)
def command(
    settings: PretrainSettings,
    emit: Emit,
    nproc: Processes = None,
    dry_run: DryRun = False,
    price_per_hour: PricePerHour = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    allow_changes: AllowChanges = False,
) -> None:
    """Go on training an encoder on your own text.

    Example: fmlm continue --from bert-base-uncased --data corpus.txt --epochs 14 --out run

    - It is the road of `fmlm pretrain` (see its --help), with half the peak learning rate (all of it where
    the head is new) and a shorter warm-up.

    - Text as --data is tokenized with the checkpoint's tokenizer into RUN.store, which is kept while text and
    settings stay the same; how text is read is set as for `fmlm tokenize`.

    - The checkpoint may be a sentence encoder, a classifier or a LoRA adapter of peft, which is merged: a
    head that it lacks is made anew, tied to its embeddings, and you are told; so it is with weights that find
    no place (--keep-unused keeps them beside).

    - New tokens' embeddings begin as the mean of the pieces that they used to be split into.

    - At the end stand the losses on every held-out text before and after, under the same masks, and the
    tokens whose prediction improved most.

    - A run over the same rows goes on in their stream: row orders and masks continue where the other stopped
    (schedule wsd, optimizer.carry_over=true: two runs in a row are one long run).

    - 43 of the 51 masked-LM types of transformers 5.23 train with the head on masked positions only, and in
    30 of them documents share rows without seeing each other, which is tried on the very model.
    Encoder-decoders and models that need more than text are refused.
    """
    if settings.model.checkpoint is None and not (resume and _started_from_one(settings.out)):
        beside = f" ({settings.out} is no run that went on from one)" if resume and settings.out else ""
        raise UserError(f"no checkpoint{beside}: give --from, a run, a Hugging Face folder or a Hub name")
    if dry_run:
        from fmlm_cli.recipes.pretraining.dry_run import estimate_run

        estimate_run(settings, price_per_hour=price_per_hour, emit=emit)
        return
    from fmlm_cli.recipes.shared.launching import hand_over

    if hand_over(nproc, settings.device, emit):
        return
    from fmlm_cli.recipes.pretraining.together import pretrain_together

    pretrain_together(settings, overwrite=overwrite, resume=resume, allow_changes=allow_changes, emit=emit)
