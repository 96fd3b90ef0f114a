"""Models that classify or score whole sequences, as they run."""
