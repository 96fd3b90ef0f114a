"""Settings as a person or an editor sees them: where each comes from, and what may stand in a file."""
