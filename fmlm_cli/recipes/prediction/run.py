"""`fmlm predict`: tokens for the masks of texts, or labels or scores of texts, by a checkpoint's head."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fmlm_cli import storage
from fmlm_cli.config import PredictSettings
from fmlm_cli.corpus.rows.buckets import by_length
from fmlm_cli.corpus.rows.sequences import Sequences, encode
from fmlm_cli.corpus.tokenizer import loading as tokenizers
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.errors import UserError, unknown_name
from fmlm_cli.events import Caution, Doing, Emit, Note, Progress, ignore
from fmlm_cli.model.build import known_config, longest_sequence, raw_config, tokenizer_for
from fmlm_cli.model.checkpoints.adapters import adapter_settings
from fmlm_cli.model.checkpoints.own_code import needs_own_code
from fmlm_cli.model.checkpoints.pretrained import load_model
from fmlm_cli.model.classification.sequence_classifier import (
    SequenceClassifier,
    classifies_alone,
    ready_classifier,
)
from fmlm_cli.model.classifier import EncoderCheckpoint
from fmlm_cli.model.isolation import isolates_documents
from fmlm_cli.model.layouts import LAYOUTS, on_device
from fmlm_cli.model.masked_lm import MaskedLM
from fmlm_cli.objectives.classification import SequenceClassification
from fmlm_cli.recipes.prediction.inputs import Inputs, check_pairs, read_inputs
from fmlm_cli.recipes.shared.checkpoints import (
    FINETUNED,
    Origin,
    check_vocabulary,
    find_checkpoint,
    finetuned_models,
)
from fmlm_cli.recipes.shared.predictions import predict_split
from fmlm_cli.recipes.shared.speed import settle_attention

_MASKS = re.compile(r"\[MASK\]|<mask>")  # what users of BERT and of RoBERTa write
_CLASSIFIER = "ForSequenceClassification"
_SEQUENCES = "SEQ_CLS"  # the same in the words of peft
_MASKED_LM = ("ForMaskedLM", "ForPreTraining", "WithLMHeadModel")

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class TokenGuess:
    """A token that may stand for a mask. `token`: its text, with its blank where the tokenizer keeps that."""

    token: str
    id: int
    probability: float


@dataclass(frozen=True)
class LabelGuess:
    """A label and its probability."""

    label: str
    probability: float


@dataclass(frozen=True)
class Score:
    """What a regression says."""

    score: float


@dataclass(frozen=True)
class Predicted(Generic[T_co]):
    """A text, or two, as given, and what a model predicts for it.

    `predictions`: for each mask in turn the likeliest tokens, the likeliest first; or all labels, the
    likeliest first; or the score (several where the model gives several, in its order).
    """

    text: str
    pair: str | None
    predictions: tuple[T_co, ...]


Guesses = tuple[TokenGuess, ...]


class FilledText(Predicted[Guesses]):
    """Of a masked LM."""


class LabelledText(Predicted[LabelGuess]):
    """Of a classifier."""


class ScoredText(Predicted[Score]):
    """Of a regression."""


@dataclass(frozen=True)
class Call:
    """A call of `predict`. `facts`: what finetuned.json says of the model, where there is one."""

    settings: PredictSettings
    origin: Origin
    facts: Mapping[str, Any] | None
    inputs: Inputs
    runtime: Runtime
    emit: Emit

    def caution(self, text: str) -> None:
        """Tell the user something that may not be wanted."""
        self.emit(Caution(text))

    def progress(self, done: int) -> None:
        """Tell how many texts are done, unless one batch is all."""
        total = len(self.inputs.texts)
        if total > self.settings.batch_size:
            self.emit(Progress("predicting", done, total, "texts"))


def predict(
    settings: PredictSettings, *, emit: Emit = ignore
) -> list[FilledText] | list[LabelledText] | list[ScoredText]:
    """What a checkpoint's model predicts for each text, in the order of the texts.

    A masked LM guesses the masks of each text, a fine-tuned model labels or scores it. Raises `UserError` for
    a checkpoint with neither head, and for texts that do not fit it.
    """
    inputs = read_inputs(settings)
    runtime = Runtime.resolve(settings.device, settings.precision, threads=settings.speed.threads)
    name = _name_of_model(settings.checkpoint, settings.task)
    origin = find_checkpoint(name, revision=settings.revision, code=settings.trust_remote_code, emit=emit)
    emit(Doing(f"loading {name}"))
    call = Call(settings, origin, _facts(origin, settings.task), inputs, runtime, emit)
    return _classify(call) if _classifies(call) else _fill_masks(call)


# ---------------------------------------------------------------- the checkpoint


def _name_of_model(name: str, task: str | None) -> str:
    """The checkpoint that a name stands for; of what `finetune` left it is the model of one task."""
    tasks = finetuned_models(Path(name))
    if tasks is None:
        return name
    if not tasks:
        raise UserError(f"{name} has no fine-tuned model yet: let `fmlm finetune` go on with --resume")
    if task is None and len(tasks) > 1:
        raise UserError(f"{name} has several models: choose with --task, one of {', '.join(tasks)}")
    if task is not None and task not in tasks:
        raise unknown_name("task", task, tasks)
    return str(tasks[task] if task is not None else next(iter(tasks.values())))


def _facts(origin: Origin, task: str | None) -> Mapping[str, Any] | None:
    """What finetuned.json says of a model, where there is one. `UserError` if it is for another task."""
    path = origin.folder / FINETUNED
    if not path.is_file():
        if task is not None:
            raise UserError(
                f"--task {task}: {origin.name} was not made by `fmlm finetune`, so it is for one task"
            )
        return None
    try:
        facts = storage.read_sealed(path)
    except UserError:
        raise UserError(f"{path} is damaged: fine-tune the model again") from None
    # Of several checkpoints' models it is CHECKPOINT/TASK that was asked for.
    if task is not None and task.rpartition("/")[2] not in (facts["task"], origin.folder.name):
        raise UserError(f"{origin.name} is for the task '{facts['task']}', not '{task}'")
    return facts


def _classifies(call: Call) -> bool:
    """Whether the model's head is one for sequences, or a masked LM's; `UserError` for any other."""
    name, path = call.origin.name, call.origin.folder / "config.json"
    if call.facts is not None:
        return True
    if (
        call.origin.adapter is not None
        and adapter_settings(call.origin.adapter, name).get("task_type") == _SEQUENCES
    ):
        return True
    raw = raw_config(path, f"{name}/config.json")
    named = raw.get("architectures")
    heads = [str(head) for head in named] if isinstance(named, list) else []
    if any(head.endswith(_CLASSIFIER) for head in heads):
        return True
    if heads and not any(head.endswith(_MASKED_LM) for head in heads):
        if not needs_own_code(raw):
            known_config(path, f"{name}/config.json")  # says more of what is no encoder at all
        raise UserError(
            f"{name} has neither a masked-LM head nor one for labels ({', '.join(heads)}): fine-tune it "
            f"(`fmlm finetune --from {name}`), or train it on as a masked LM (`fmlm continue --from {name}`)"
        )
    return False


def _encode(
    call: Call, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], longest: int
) -> Sequences:
    """The texts as tokens, at most `longest` in each; it is told how many were cut.

    Refuses another model's tokenizer.
    """
    check_vocabulary(model, tokenizer, call.origin.name)
    pairs = [pair for pair in call.inputs.pairs if pair is not None] or None
    sequences = encode(tokenizer, texts, pairs, longest)
    if sequences.cut:
        call.caution(
            f"{sequences.cut:,} of {len(texts):,} texts cut to the {longest:,} tokens that the model reads"
        )
    return sequences


def _longest(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> int:
    """Tokens that the model reads; more than any text has where neither it nor its tokenizer has a limit."""
    tokenizer_limit = int(tokenizer.model_max_length)
    return min(tokenizer_limit, longest_sequence(model) or tokenizer_limit)


# ---------------------------------------------------------------- masks


def _fill_masks(call: Call) -> list[FilledText]:
    check_pairs(call.inputs, False, "a masked LM takes")
    origin = call.origin
    saved_tokenizer = tokenizers.load_tokenizer(str(origin.tokenizer_folder))
    mask = str(saved_tokenizer.mask_token)
    texts = [_MASKS.sub(lambda _: mask, text) for text in call.inputs.texts]
    for number, text in enumerate(texts):
        if mask not in text:
            raise UserError(
                f"{call.inputs.place(number)} has no mask: write {mask} where a token is to be guessed"
            )
    loaded = load_model(
        origin.folder,
        name=origin.name,
        adapter=origin.adapter,
        trust_remote_code=call.settings.trust_remote_code,
        announce=call.caution,
    )
    model = MaskedLM(loaded).to(call.runtime.device).eval()
    tokenizer = tokenizer_for(loaded, saved_tokenizer)
    longest, trained = int(tokenizer.model_max_length), int(saved_tokenizer.model_max_length)
    sequences = _encode(call, loaded, tokenizer, texts, longest)
    _check_masks(call.inputs, texts, sequences, tokenizer, longest)
    width = int(sequences.lengths.max())
    settle_attention(model, call.runtime, width, call.settings.speed.attention, isolates_documents)
    if beyond := int((sequences.lengths > trained).sum()):
        call.caution(
            f"{beyond:,} of {len(texts):,} texts longer than the {trained:,} tokens that the model was "
            "trained on"
        )
    all_guesses = _guess(call, model, tokenizer, sequences)
    return [
        FilledText(text, None, guesses) for text, guesses in zip(call.inputs.texts, all_guesses, strict=True)
    ]


def _check_masks(
    inputs: Inputs,
    texts: Sequence[str],
    sequences: Sequences,
    tokenizer: PreTrainedTokenizerFast,
    longest: int,
) -> None:
    """Refuse a text that has lost a mask on its way to the model."""
    is_mask = np.concatenate([[0], np.cumsum(sequences.tokens == tokenizer.mask_token_id)])
    masks_left = np.diff(is_mask[sequences.offsets])
    for number, text in enumerate(texts):
        if masks_left[number] == text.count(str(tokenizer.mask_token)):
            continue
        if sequences.lengths[number] == longest:
            raise UserError(
                f"{inputs.place(number)}: a mask lies beyond the {longest:,} tokens that the model reads: "
                "shorten the text"
            )
        raise UserError(
            f"{inputs.place(number)}: the tokenizer does not read every {tokenizer.mask_token} as a mask: "
            "put blanks around it"
        )


@torch.no_grad()
def _guess(
    call: Call, model: MaskedLM, tokenizer: PreTrainedTokenizerFast, sequences: Sequences
) -> list[tuple[Guesses, ...]]:
    """For each sequence and each of its masks, both in order, the likeliest tokens."""
    guesses: list[list[Guesses]] = [[] for _ in range(len(sequences))]
    done, lay_out = 0, LAYOUTS[model.attention.layout]
    for index in by_length(sequences.lengths, call.settings.batch_size):
        ids, _, present = sequences.padded(index, int(tokenizer.pad_token_id))
        at = np.flatnonzero(ids.ravel() == tokenizer.mask_token_id)
        positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape).copy()
        inputs = on_device(lay_out(ids, positions, present, at), call.runtime.device)
        with call.runtime.autocast():
            logits = model(**inputs).logits()
        likely = logits.float().softmax(-1)
        best = likely.topk(min(call.settings.top, likely.shape[-1]))
        _check_finite(best.values.cpu().numpy(), call.origin.name)
        rows = zip(index[at // ids.shape[1]], best.indices.tolist(), best.values.tolist(), strict=True)
        for number, tokens, probabilities in rows:
            guesses[number].append(
                tuple(
                    TokenGuess(tokenizer.decode([token]), token, probability)
                    for token, probability in zip(tokens, probabilities, strict=True)
                )
            )
        done += len(index)
        call.progress(done)
    return [tuple(masks) for masks in guesses]


# ---------------------------------------------------------------- labels and scores


def _classify(call: Call) -> list[LabelledText] | list[ScoredText]:
    origin, facts, inputs = call.origin, call.facts, call.inputs
    if facts is not None:
        check_pairs(inputs, bool(facts["pair"]), f"the task '{facts['task']}' takes")
    else:  # its configuration does not say; but texts of both kinds are a slip
        check_pairs(inputs, inputs.pairs[0] is not None, f"{inputs.place(0)} is")
    saved_tokenizer = tokenizers.load_tokenizer(str(origin.tokenizer_folder))
    encoder = EncoderCheckpoint.read(
        origin.folder,
        name=origin.name,
        adapter=origin.adapter,
        trust_remote_code=call.settings.trust_remote_code,
        announce=call.caution,
    )
    labels = [str(encoder.config.id2label[number]) for number in sorted(encoder.config.id2label)]
    classifier = encoder.classifier(labels, seed=0, dropout=0.0)  # which some kernels have not
    if classifier.new:
        raise UserError(
            f"{origin.name} lacks weights of its head ({', '.join(classifier.new[:3])}): give a whole "
            "checkpoint"
        )
    model = classifier.model
    tokenizer, longest = tokenizer_for(model, saved_tokenizer), _longest(model, saved_tokenizer)
    if facts is not None:
        call.emit(Note(f"{origin.name}: task {facts['task']}, development score {facts['score']:.3f}"))
        longest = min(longest, int(facts["max_length"]))
    sequences = _encode(call, model, tokenizer, inputs.texts, longest)
    longest = int(sequences.lengths.max())  # some models have no limit at all
    running = _attending(call, model, longest)
    pad = int(tokenizer.pad_token_id)
    objective = SequenceClassification.of_model(running, longest, pad=pad, regression=False)
    outputs = predict_split(
        running,
        objective,
        sequences,
        call.settings.batch_size,
        call.runtime,
        call.progress,
    )
    _check_finite(outputs, origin.name)
    likely = _probabilities(torch.from_numpy(outputs), encoder.config.problem_type)
    if likely is None:
        scores = (tuple(map(Score, row)) for row in outputs.tolist())
        return [ScoredText(*parts) for parts in zip(inputs.texts, inputs.pairs, scores, strict=True)]
    guesses = (_ranked(labels, row) for row in likely.tolist())
    return [LabelledText(*parts) for parts in zip(inputs.texts, inputs.pairs, guesses, strict=True)]


def _attending(call: Call, pretrained: PreTrainedModel, longest: int) -> SequenceClassifier:
    """A classifier that attends as the settings ask."""
    tried, asked = SequenceClassifier(pretrained), call.settings.speed.attention
    settle_attention(tried, call.runtime, longest, asked, classifies_alone)
    return ready_classifier(pretrained, type(tried.attention), call.runtime.device)


def _probabilities(outputs: Tensor, problem_type: str | None) -> Tensor | None:
    """Probabilities float32[texts, labels] of such logits, or None where they are scores.

    A lone output of unknown kind is a score, as there is nothing to tell apart.
    """
    if problem_type == "multi_label_classification":
        return outputs.sigmoid()
    return None if problem_type == "regression" or outputs.shape[1] == 1 else outputs.softmax(-1)


def _ranked(labels: Sequence[str], probabilities: Sequence[float]) -> tuple[LabelGuess, ...]:
    guesses = map(LabelGuess, labels, probabilities)
    return tuple(sorted(guesses, key=lambda guess: -guess.probability))


def _check_finite(values: npt.NDArray[np.float32], name: str) -> None:
    if not np.isfinite(values).all():
        raise UserError(f"{name}: the model's outputs are not finite, so its weights are damaged")
