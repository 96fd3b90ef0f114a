"""A Hugging Face classifier, run so that padding is not computed where its attention can do without."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from fmlm_cli.hub import quiet
from fmlm_cli.model.adapting.dropout import draw_dropout_by_bits
from fmlm_cli.model.attention import AttentionBackend, MaskOnRows, attending_by
from fmlm_cli.model.classification.first_token import shorten_last_layer
from fmlm_cli.model.isolation import as_exactly_as_it_can
from fmlm_cli.model.layouts import LAYOUTS, Int64s, LayoutName, on_device
from fmlm_cli.model.probes import NOT_TAKEN, check_finite, copy_to_try, probe_tokens

_WIDTHS = 8  # columns: rows for a head are as wide as a multiple of so many, so that a GPU sees few shapes
_SHORTEST = 4  # positions of the longest sequence that is tried
_LONGEST = 512


class SequenceClassifier(nn.Module):
    """Wraps a Hugging Face model with a head for whole sequences. It adds no parameters and changes none.

    On a flat row the encoder sees the sequences of a batch end to end. What it gives is laid out in padded
    rows again before pooler and head, which so run as in the stock forward, whatever they look at.

    `backend`: how it attends, until `attend_by` says otherwise.
    """

    def __init__(self, pretrained: PreTrainedModel, backend: type[AttentionBackend] = MaskOnRows) -> None:
        super().__init__()
        self.pretrained = pretrained
        self.attention = backend(pretrained)
        self._row_index: Tensor | None = None
        self._encoder_mask: Any = None
        base = pretrained.base_model
        encoder = getattr(base, "encoder", None)  # of the base model its pooler may be a part
        base.register_forward_pre_hook(self._as_the_encoder_is_given_it, with_kwargs=True)
        (encoder if isinstance(encoder, nn.Module) else base).register_forward_hook(self._in_rows)

    def attend_by(self, backend: type[AttentionBackend]) -> None:
        """Attend by another backend from now on; batches then have to be in its layout."""
        if type(self.attention) is not backend:
            self.attention = backend(self.pretrained)

    def _as_the_encoder_is_given_it(
        self, module: nn.Module, args: Any, kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Hook: the mask that the head is given is one of rows."""
        if self._row_index is not None:
            kwargs = {**kwargs, "attention_mask": self._encoder_mask}
        return args, kwargs

    def _in_rows(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        """Hook: hidden states [1, tokens, width] as [sequences, longest, width]."""
        if self._row_index is not None:
            index, states = self._row_index, output.last_hidden_state[0]
            output.last_hidden_state = states.index_select(0, index.flatten()).unflatten(0, index.shape)
        return output

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        row_index: Tensor | None = None,
        present: Tensor | None = None,
        **batch: Any,
    ) -> Tensor:
        """Logits [sequences, labels] of what `sequence_inputs` gives."""
        inputs = dict(self.attention.inputs(batch))
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        if row_index is not None:
            self._row_index, self._encoder_mask = row_index, inputs.get("attention_mask")
            inputs["attention_mask"] = present
        try:
            with attending_by(self.pretrained.config, self.attention.implementation):
                logits: Tensor = self.pretrained(input_ids=input_ids, **inputs).logits
        finally:
            self._row_index = self._encoder_mask = None
        return logits


def sequence_inputs(
    layout: LayoutName, ids: Int64s, types: Int64s | None, present: Int64s, room: int | None = None
) -> dict[str, Any]:
    """The inputs of a `SequenceClassifier` whose attention takes `layout`.

    `ids`, `types`, `present`: int64[sequences, positions], each sequence at its row's beginning; `present`: 1
    where there is a token. `room`: as layouts take it.

    In the layout `flat` there is, beside what that gives, where in the flat row each position of the rows
    lies, `row_index`, and which of these are tokens, `present`: int64[sequences, longest].
    """
    rows, length = ids.shape
    longest = min(-(-int(present.sum(axis=1).max()) // _WIDTHS) * _WIDTHS, length)
    at = np.arange(ids.size).reshape(ids.shape)[:, :longest]
    positions = np.tile(np.arange(length), (rows, 1))
    inputs = LAYOUTS[layout](ids, positions, present, at.ravel(), room)
    row_index = inputs.pop("masked_index").view(rows, longest)
    if layout == "flat":
        inputs["row_index"] = row_index
        inputs["present"] = torch.from_numpy(np.ascontiguousarray(present[:, :longest]))
        if types is not None:
            tokens, types = types[present > 0], np.zeros(tuple(inputs["input_ids"].shape), np.int64)
            types[0, : len(tokens)] = tokens
    if types is not None:
        inputs["token_type_ids"] = torch.from_numpy(types)
    return inputs


def ready_classifier(
    pretrained: PreTrainedModel, backend: type[AttentionBackend], device: torch.device
) -> SequenceClassifier:
    """A classifier on its device, as fast there as its family allows."""
    model = SequenceClassifier(pretrained, backend)
    if model.attention.layout == "rows":
        shorten_last_layer(pretrained)
    draw_dropout_by_bits(model)
    return model.to(device)


@torch.no_grad()
def classifies_alone(
    model: SequenceClassifier,
    length: int,
    *,
    backend: type[AttentionBackend],
    device: torch.device | None = None,
) -> bool:
    """Whether this very model gives each sequence of a batch the logits of the stock forward on it alone.

    Tried, not assumed, on sequences of up to `length` positions, beside one that changes; with a backend in
    16 bits as exactly as these allow.
    """
    trial, stock = (copy_to_try(model).to(device) for _ in range(2))
    total = min(max(length, _SHORTEST), _LONGEST)
    lengths = [total, total // 2, 3, total, 2]
    config, place = trial.pretrained.config, trial.pretrained.device
    tokens = probe_tokens(config, len(lengths) * total).reshape(len(lengths), total)
    present = (np.arange(total) < np.array(lengths)[:, None]).astype(np.int64)
    changed = tokens.copy()
    changed[0] = tokens[0, ::-1]

    def logits_of(ids: Int64s) -> Tensor:
        inputs = sequence_inputs(trial.attention.layout, ids * present, None, present)
        logits: Tensor = trial(**on_device(inputs, place))[1:]
        return logits

    try:
        with torch.random.fork_rng(devices=[]), quiet():
            trial.attend_by(backend)
            beside_one, beside_another = logits_of(tokens), logits_of(changed)
            singly = [torch.from_numpy(tokens[i : i + 1, : lengths[i]]) for i in range(1, len(lengths))]
            alone = torch.cat([stock.pretrained(input_ids=ids.to(place)).logits for ids in singly])
    except NOT_TAKEN:
        return False  # the family's encoder or head does not take such a batch
    check_finite(alone, config)
    return as_exactly_as_it_can(backend, beside_one, beside_another, alone)
