"""Facts that several recipes tell, in words."""

import torch


def counted(number: int, thing: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{number:,} {thing}{'s' * (number != 1)}"


def where_line(device: torch.device, precision: torch.dtype) -> str:
    """Device and precision."""
    return f"{device}, {str(precision).removeprefix('torch.')}"
