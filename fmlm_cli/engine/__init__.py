"""The engine: one step, one loop, for batches of any kind. It knows nothing of masks, tasks or consoles."""
