"""Text in files: which ones a name stands for, and the documents in them."""
