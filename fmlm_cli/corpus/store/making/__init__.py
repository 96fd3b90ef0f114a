"""A store is made of parts, which processes encode, once it is decided what becomes of each document."""
