"""Experiment trackers of others (TensorBoard, W&B, trackio), which take the records of a run."""
