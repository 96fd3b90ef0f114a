"""The token store: written once, read zero-copy."""
