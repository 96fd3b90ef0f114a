"""Work made of many pieces: what is done, what is left, and who does it."""
