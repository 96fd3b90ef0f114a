"""Text: sources, and the documents in them."""
