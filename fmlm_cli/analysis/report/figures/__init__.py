"""The reports' figures."""
