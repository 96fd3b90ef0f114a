"""Tokenizers: loaded, learnt, extended, and made to encode many texts fast."""
