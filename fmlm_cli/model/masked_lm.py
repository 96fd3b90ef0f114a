"""A Hugging Face masked LM, run so that documents stay apart and the head sees masked positions only."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from fmlm_cli.model.attention import AttentionBackend, MaskOnRows, attending_by
from fmlm_cli.model.probes import Head, Probed, decoder_set_aside, probe_head


class HeadOutput(NamedTuple):
    """`hidden`, float[masked, width], and the `decoder` that makes logits [masked, vocabulary] of it.

    So a loss may fuse decoder and cross-entropy, and need not keep all logits. Where a family's decoder
    cannot be taken apart from its head, `hidden` holds the logits and `decoder` is an identity.

    A tuple, because what looks for tensors in a module's output, such as FSDP2, looks into tuples.
    """

    hidden: Tensor
    decoder: nn.Module

    def logits(self) -> Tensor:
        """float[masked, vocabulary]."""
        logits: Tensor = self.decoder(self.hidden)
        return logits


class MaskedLM(Probed):
    """Wraps a Hugging Face masked LM of any family. It adds no parameters and changes none.

    The head of such a model is whatever runs after its base model. Here the base model's output is reduced to
    the masked positions by a forward hook before the head sees it; so the head runs on a seventh of the
    positions and gives the same logits there as the stock forward. So does most of the last layer, where it
    is built like BERT's: once its attention has looked at all positions, no other's outcome is asked for.

    The head's last module, its decoder, is left to the caller. While the model runs, an identity stands in
    the decoder's place, so no product is computed twice; afterwards the model is the stock one to the last
    module, and copies, adapters, tied weights and saving know nothing of it. The caller runs the decoder as
    a module, hooks included. (To leave the forward by an exception where the decoder begins would skip the
    hooks of the modules around it, on which FSDP2 relies; an override of its `forward` would stay in the
    model and its copies.)

    `head.whole`: the head does not take masked positions alone, which is tried when wrapping; then it runs
    on all positions and the masked ones are taken from what it gives. At the usual rate that is seven times
    its work. `head.decoder`: the decoder's name in `pretrained`, or None where it cannot be set aside,
    which is tried too. `head.narrowed_before`: from where on the last layer runs on masked positions.

    `backend`: how it attends, until `attend_by` says otherwise. Raises `UserError` for a model that cannot be
    trained on rows of tokens.
    """

    def __init__(self, pretrained: PreTrainedModel, backend: type[AttentionBackend] = MaskOnRows) -> None:
        super().__init__()
        self.pretrained = pretrained
        self.attention = backend(pretrained)
        self._masked_index: Tensor | None = None
        pretrained.base_model.register_forward_hook(self._select_masked)
        self.head = Head(whole=False, decoder=None)
        self.head = probe_head(self)
        if self.head.narrowed_before is not None:
            self.narrow_before(self.head.narrowed_before)

    @property
    def whole_head(self) -> bool:
        """Whether the head runs on all positions."""
        return self.head.whole

    @property
    def narrowed_layer(self) -> nn.Module | None:
        """The layer that ends on masked positions alone, where one does."""
        name = self.head.narrowed_before
        return None if name is None else self.pretrained.get_submodule(name.rsplit(".", 2)[0])

    def attend_by(self, backend: type[AttentionBackend]) -> None:
        """Attend by another backend from now on; batches then have to be in its layout."""
        if type(self.attention) is not backend:
            self.attention = backend(self.pretrained)

    def narrow_before(self, name: str) -> None:
        """Reduce what a module of the last layer is given, and so all after it, to the masked positions.

        The module is given hidden states [rows, length, hidden] and nothing else.
        """
        self.head = self.head._replace(narrowed_before=name)
        self.pretrained.get_submodule(name).register_forward_pre_hook(self._narrow)

    @property
    def _is_narrowed(self) -> bool:
        """Whether the last layer sees masked positions alone; of none, a pooler could not take the first."""
        index = self._masked_index
        return index is not None and len(index) > 0 and self.head.narrowed_before is not None

    def _narrow(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Hook: every input at the masked positions."""
        if not self._is_narrowed:
            return inputs
        assert self._masked_index is not None
        return tuple(_at_masked(states, self._masked_index) for states in inputs)

    def _select_masked(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        """Hook: the base model's output at the masked positions, where it still has all of them."""
        if self._masked_index is not None and not self.head.whole and not self._is_narrowed:
            output.last_hidden_state = _at_masked(output.last_hidden_state, self._masked_index)
        return output

    def forward(self, input_ids: Tensor, masked_index: Tensor, **batch: Any) -> HeadOutput:
        """Hidden states at `masked_index`, counted through the flattened `input_ids`, and the decoder.

        `input_ids`, `masked_index`, `batch`: what the layout of the model's attention backend makes of rows
        (`layouts`), int64[rows, length], int64[masked], and what the backend alone reads.
        """
        inputs = self.attention.inputs(batch)
        self._masked_index = masked_index
        try:
            attending = attending_by(self.pretrained.config, self.attention.implementation)
            with attending, decoder_set_aside(self.pretrained, self.head):
                states: Tensor = self.pretrained(input_ids=input_ids, **inputs).logits
        finally:
            self._masked_index = None
        hidden = states.flatten(0, 1)[masked_index] if self.head.whole else torch.squeeze_copy(states, 0)
        if self.head.decoder is None:
            return HeadOutput(hidden, nn.Identity())
        return HeadOutput(hidden, self.pretrained.get_submodule(self.head.decoder))


def _at_masked(states: Tensor, index: Tensor) -> Tensor:
    """Hidden states [rows, length, hidden] -> [1, masked, hidden]; some heads want three axes."""
    return states.flatten(0, 1).index_select(0, index)[None]
