"""`fmlm continue`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fmlm_cli.cli.running import (
    AddTokens,
    ConfigFile,
    Debug,
    DocumentsOption,
    Epochs,
    Evaluations,
    ExtendVocab,
    Masking,
    OnBadText,
    Out,
    Overwrite,
    Replay,
    Resume,
    Revision,
    ScheduleOption,
    SetOption,
    Steps,
    TextField,
    Tokens,
    TrustRemoteCode,
    command,
    list_settings,
    named_stores,
    read_settings,
)
from fmlm_cli.config import PretrainSettings
from fmlm_cli.errors import UserError
from fmlm_cli.storage import MANIFEST

# A decay from where a run stands to nothing, with the state of its optimizer.
_DECAY_ONLY = {
    "optimizer.schedule": "wsd",
    "optimizer.warmup_share": 0.0,
    "optimizer.decay_share": 1.0,
    "optimizer.carry_over": True,
}


def continue_(
    config: ConfigFile = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN[@step-N]|FOLDER|HUB-NAME",
            help="What to go on from: a run of fmlm's, or any Hugging Face encoder.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STORE[:WEIGHT]|SOURCE",
            help="Stores of the checkpoint's tokenizer, or text (files, folders, globs), which is tokenized into RUN.store. May be repeated.",
            show_default=False,
        ),
    ] = None,
    masking: Masking = None,
    out: Out = None,
    valid: Annotated[
        list[str] | None,
        typer.Option(metavar="SOURCE", help="Held-out text, where --data is text.", show_default=False),
    ] = None,
    documents: DocumentsOption = None,
    text_field: TextField = None,
    on_bad_text: OnBadText = None,
    add_tokens: AddTokens = None,
    extend_vocab: ExtendVocab = None,
    replay: Replay = None,
    evaluations: Evaluations = None,
    steps: Steps = None,
    tokens: Tokens = None,
    epochs: Epochs = None,
    schedule: ScheduleOption = None,
    decay_only: Annotated[
        bool,
        typer.Option(
            "--decay-only",
            help="Let the learning rate of a run fall from where it stands to 0, with its optimizer's state.",
        ),
    ] = False,
    head_warmup: Annotated[
        int | None,
        typer.Option(
            metavar="STEPS", help="First train the head alone, where it is new.", show_default=False
        ),
    ] = None,
    freeze: Annotated[
        str | None,
        typer.Option(metavar="PARTS", help="What stays as it is, e.g. embeddings,0-3.", show_default=False),
    ] = None,
    lora: Annotated[
        int | None,
        typer.Option(
            metavar="RANK", help="Train LoRA adapters of this rank, merged at the end.", show_default=False
        ),
    ] = None,
    max_positions: Annotated[
        int | None, typer.Option(help="Extend the model to sequences of this length.", show_default=False)
    ] = None,
    keep_unused: Annotated[
        bool, typer.Option("--keep-unused", help="Keep weights that have no use here, such as a pooler.")
    ] = False,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    seed: Annotated[
        int | None, typer.Option(help="Seed of order, masks and what is new. Default: 0.", show_default=False)
    ] = None,
    assignments: SetOption = None,
    settings_table: Annotated[
        bool,
        typer.Option(
            "--settings",
            callback=list_settings(PretrainSettings),
            is_eager=True,
            help="List all settings, for --set, and exit.",
        ),
    ] = False,
    overwrite: Overwrite = False,
    resume: Resume = False,
    debug: Debug = False,
) -> None:
    """Go on training an encoder on your own text.

    Example: fmlm continue --from bert-base-uncased --data corpus.txt --masking fully-explored --epochs 14 --out run
    """
    with command(debug) as emit:
        flags = {
            **_data(data),
            **(_DECAY_ONLY if decay_only else {}),
            "model.checkpoint": checkpoint,
            "model.revision": revision,
            "model.trust_remote_code": trust_remote_code or None,
            "model.keep_unused": keep_unused or None,
            "model.freeze": freeze.split(",") if freeze else None,
            "model.lora.rank": lora,
            "model.max_positions": max_positions,
            "masking.strategy": masking,
            "out": out,
            "text.valid": valid,
            "text.documents": documents,
            "text.text_field": text_field,
            "text.on_bad_text": on_bad_text,
            "text.add_tokens": add_tokens,
            "text.extend_vocab": extend_vocab,
            "data.replay": replay,
            "evaluation.stores": named_stores(evaluations),
            "optimizer.head_warmup_steps": head_warmup,
            "budget.steps": steps,
            "budget.tokens": tokens,
            "budget.epochs": epochs,
            "seed": seed,
            **({"optimizer.schedule": schedule} if schedule else {}),
        }
        settings = read_settings(PretrainSettings, flags, assignments, config)
        from fmlm_cli.recipes import pretraining

        if settings.model.checkpoint is None and not resume:
            raise UserError("no checkpoint: give --from, a run, a Hugging Face folder or a Hub name")
        pretraining.pretrain(settings, overwrite=overwrite, resume=resume, emit=emit)


def _data(given: list[str] | None) -> dict[str, Any]:
    """--data as stores or as text, by what is there."""
    if not given:
        return {}
    stores = [text for text in given if _is_store(text)]
    if not stores:
        return {"text.sources": given}
    if len(stores) < len(given):
        other = next(text for text in given if text not in stores)
        raise UserError(f"--data {other} is no store, and {stores[0]} is one: give stores, or text")
    return {"data.stores": stores}


def _is_store(text: str) -> bool:
    return any((Path(path) / MANIFEST).is_file() for path in (text, text.rpartition(":")[0] or text))
