"""Dropout on a CPU, whose generator gives one number after the other: a fifth of a lean step goes into it.

One draw of 64 bits decides about four values here, where `nn.Dropout` takes a draw for each. The rate is the
nearest one of 1/65536.
"""

import torch
from torch import Tensor, nn

_RATES = 1 << 16
_LEAST = -(1 << 15)


def scaled_keep(like: Tensor, rate: float) -> Tensor:
    """1 / (1 - rate) where a value is kept, 0 where it is dropped, of the shape and type of `like`.

    Independent draws of torch's generator for the CPU; `rate` is below 1.
    """
    dropped = round(rate * _RATES)
    words = torch.empty(-(-like.numel() // 4), dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)
    kept = words.view(torch.int16)[: like.numel()].view(like.shape) >= _LEAST + dropped
    return kept.to(like.dtype).mul_(_RATES / (_RATES - dropped))


class BitDropout(nn.Dropout):
    """`nn.Dropout` with fewer draws; elsewhere than on a CPU it is `nn.Dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        """`input` with a share `p` of its values set to 0 and the rest scaled up, in training."""
        drops = self.training and 0 < round(self.p * _RATES) < _RATES
        return input * scaled_keep(input, self.p) if drops and input.is_cpu else super().forward(input)


def draw_dropout_by_bits(model: nn.Module) -> None:
    """Make every `nn.Dropout` in a model a `BitDropout` of the same rate, for good."""
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, BitDropout(child.p).train(child.training))
