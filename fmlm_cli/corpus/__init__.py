"""Corpora: text to documents, documents to a token store, the store to rows."""
