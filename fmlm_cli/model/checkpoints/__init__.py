"""Models of checkpoints, loaded without running what they bring unless it is trusted."""
