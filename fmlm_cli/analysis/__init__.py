"""Analysis: figures from results."""
