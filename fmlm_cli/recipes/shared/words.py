"""Facts that several recipes tell, in words."""

import torch


def where_line(device: torch.device, precision: torch.dtype) -> str:
    """Device and precision."""
    return f"{device}, {str(precision).removeprefix('torch.')}"
