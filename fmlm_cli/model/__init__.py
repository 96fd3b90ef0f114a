"""Models: built from a preset or a config.json, loaded, and run with the head on masked positions only."""
