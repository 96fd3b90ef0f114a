"""What becomes of a model that nobody has a use for any more."""

from torch import nn


def let_go(model: nn.Module) -> None:
    """Take the hooks from a model, which is not called again, so that its memory is free with its last name.

    They are methods of what holds the model: a circle, which Python looks for so seldom that the models of
    many runs would stand in memory beside each other.
    """
    for module in model.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
