"""Attention backends that are wrong, each in one way."""

from typing import Any

import torch
from torch import Tensor

from fmlm_cli.model.attention import MaskOnRows


class Leaking(MaskOnRows):
    """Positions restart in each document, but the mask only hides padding."""

    name = "leaking"

    def _isolated(self, position_ids: Tensor, segments: Tensor) -> dict[str, Any]:
        inputs = {"attention_mask": (segments > 0).long()}
        if self._takes_positions:
            inputs["position_ids"] = position_ids + self._offset
        return inputs


class OnePositionOff(MaskOnRows):
    """Documents stay apart, but the second one's positions go on from the first's."""

    name = "one position off"

    def _isolated(self, position_ids: Tensor, segments: Tensor) -> dict[str, Any]:
        everywhere = torch.arange(position_ids.shape[1]).expand_as(position_ids)
        return dict(super()._isolated(everywhere, segments))


class WideWindow(MaskOnRows):
    """One mask for all layers, which drops the sliding window."""

    name = "wide window"

    def _isolated(self, position_ids: Tensor, segments: Tensor) -> dict[str, Any]:
        inputs = dict(super()._isolated(position_ids, segments))
        inputs["attention_mask"] = inputs["attention_mask"]["full_attention"]
        return inputs
