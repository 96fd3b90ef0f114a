"""What a run begins with: a fresh model, or a checkpoint fitted to the data and to what is asked of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

from fmlm_cli.config import PretrainSettings
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.corpus.tokenizer.extending import pieces_of_new
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Emit
from fmlm_cli.model.adapting.lora import add_lora
from fmlm_cli.model.adapting.positions import extend_positions
from fmlm_cli.model.adapting.vocabulary import extend_embeddings
from fmlm_cli.model.build import (
    VocabularyFacts,
    build_model,
    dropout_rates,
    longest_sequence,
    read_config,
    set_output_bias,
    with_dropout,
)
from fmlm_cli.model.checkpoints.pretrained import load_pretrained
from fmlm_cli.model.layers import freeze, frozen_parameters, head_parameters
from fmlm_cli.objectives.masked_lm import unigram_losses
from fmlm_cli.recipes.shared.checkpoints import Origin, check_tokenizer, check_vocabulary


@dataclass(frozen=True)
class Start:
    """A model to be trained, and how it came to be.

    `dropout`: the rates that the saved model is given. `new`, `unused`: parameters that the checkpoint lacks,
    and names of its tensors that found no place. `kept`: those of them that are saved beside the model.
    `done`: name-value rows that say what was changed. `trained`: positions on which the checkpoint was
    trained, as it and its tokenizer say.
    """

    model: PreTrainedModel
    dropout: Mapping[str, float]
    new: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    kept: Mapping[str, torch.Tensor] = field(default_factory=dict)
    done: Mapping[str, str] = field(default_factory=dict)
    trained: int = 0


def from_scratch(settings: PretrainSettings, store: TokenStore) -> Start:
    """The freshly initialised model: a function of the seed, the vocabulary and its frequencies."""
    model = build_model(
        settings.model.name, vocabulary_of(store), dropout=settings.model.dropout or 0.0, seed=settings.seed
    )
    if settings.model.unigram_bias:
        _start_at_frequencies(model, store)
    return Start(model, dropout_rates(read_config(settings.model.name)))


def vocabulary_of(store: TokenStore) -> VocabularyFacts:
    """What a model has to know of the store's tokenizer."""
    special = store.special
    return VocabularyFacts(store.vocabulary, special.pad, store.tokenizer.cls_token_id, special.separator)


def _start_at_frequencies(model: PreTrainedModel, store: TokenStore) -> bool:
    return set_output_bias(model, -unigram_losses(store.token_counts, store.special.never_masked))


def begin(settings: PretrainSettings, origin: Origin, emit: Emit) -> Start:
    """The checkpoint's model, with the positions and the dropout that the settings ask for.

    Raises `UserError` for a checkpoint that cannot be loaded, and for what cannot be done with its model.
    """
    loaded = load_pretrained(
        origin.folder,
        name=origin.name,
        adapter=origin.adapter,
        trust_remote_code=settings.model.trust_remote_code,
        seed=settings.seed,
        announce=lambda text: emit(Caution(text)),
    )
    kept = loaded.spare if settings.model.keep_unused else {}
    # A head that is nothing but a decoder lacks nothing once that is tied to the embeddings; it is new all
    # the same.
    new = loaded.new or (("decoder",) if loaded.tied_anew else ())
    model, rates, done = loaded.model, dropout_rates(loaded.model.config), {}
    trained = longest_sequence(model) or VERY_LARGE_INTEGER
    check_parts(settings, model)
    if settings.model.max_positions is not None:
        model, done["positions"] = extend_positions(model, settings.model.max_positions)
    if settings.model.dropout is not None:
        model = with_dropout(model, settings.model.dropout)
    return Start(model, rates, new, loaded.unused, kept, done, trained)


def check_parts(settings: PretrainSettings, model: PreTrainedModel) -> None:
    """Refuse parts to freeze that the model has not, and freezing beside adapters."""
    if settings.model.freeze and settings.model.lora.rank is not None:
        raise UserError("model.freeze and model.lora exclude each other: adapters freeze all else already")
    frozen_parameters(model, settings.model.freeze)


def fit_to_store(
    start: Start, settings: PretrainSettings, origin: Origin, store: TokenStore, emit: Emit
) -> Start:
    """The checkpoint's model with the store's vocabulary and a head, all frozen that is not to be trained.

    Raises `UserError` for a store of another tokenizer.
    """
    base = check_tokenizer(origin, store, extended=True)
    model, done = start.model, dict(start.done)
    check_vocabulary(model, base, origin.name)
    extended = store.vocabulary > len(base)
    if extended:
        pieces = pieces_of_new(store.tokenizer, len(base), base)
        extend_embeddings(model, store.vocabulary, pieces, seed=settings.seed)
        done["new tokens"] = f"{len(pieces):,}, each begun as the mean of the tokens it used to be split into"
    start = replace(start, done=done, trained=min(start.trained, base.model_max_length))
    if start.new:
        start = _begin_head(start, settings, origin, store, emit)
    return _choose_trained(start, settings, extended)


def _begin_head(
    start: Start, settings: PretrainSettings, origin: Origin, store: TokenStore, emit: Emit
) -> Start:
    """Start a new head's bias at the word frequencies, and say that the head is new."""
    frequencies = settings.model.unigram_bias and _start_at_frequencies(start.model, store)
    head = "tied to the embeddings" + (", its bias at the word frequencies" if frequencies else "")
    advice = (
        "" if settings.optimizer.head_warmup_steps else "; --head-warmup STEPS would train it alone first"
    )
    emit(
        Caution(
            f"{origin.name} has no masked-LM head (missing: "
            f"{', '.join(start.new[:2])}{', ...' if len(start.new) > 2 else ''}): it gets a new one, "
            f"{head}{advice}"
        )
    )
    return replace(start, done={**start.done, "head": f"new, {head}"})


def _choose_trained(start: Start, settings: PretrainSettings, extended: bool) -> Start:
    """Freeze what is to stay, or put adapters in."""
    model, lora, done = start.model, settings.model.lora, dict(start.done)
    if settings.model.freeze:
        freeze(model, settings.model.freeze)
        done["frozen"] = ", ".join(settings.model.freeze)
    if lora.rank is not None:
        alpha = lora.alpha or 2.0 * lora.rank
        train = {name for name, _ in model.named_parameters() if name in start.new}
        if extended:  # the new rows have to be learnt
            embeddings = model.get_input_embeddings().weight, model.get_output_embeddings().weight
            train |= {
                name
                for name, p in model.named_parameters()
                if any(p is embedding for embedding in embeddings)
            }
        add_lora(
            model, rank=lora.rank, alpha=alpha, dropout=lora.dropout, seed=settings.seed, train=sorted(train)
        )
        done["adapters"] = (
            f"LoRA of rank {lora.rank}, alpha {alpha:g}, merged into the weights that are saved"
        )
    return replace(start, done=done)


def beside_head(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    """What is trained of a model but its head; it rests while the head is trained alone."""
    head = set(head_parameters(model))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not head & trained.keys():
        raise UserError("optimizer.head_warmup_steps: the head has no weights of its own to train alone")
    return [p for name, p in trained.items() if name not in head]
