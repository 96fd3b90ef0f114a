"""`fmlm runs` and `fmlm plot`: runs seen from outside, by their config.yaml and metrics.jsonl."""
