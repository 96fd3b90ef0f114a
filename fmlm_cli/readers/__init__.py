"""Readers of lines, json, csv and parquet, each row with the place where it stands."""
