"""A trained model made to fit: more tokens, more positions, adapters."""
