"""The noise of gradients: measured, and estimated from what was measured."""
