"""From settings to a plan: check, make the data, load, decide."""
