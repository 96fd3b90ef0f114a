"""One command a file; what they do is the recipes'."""
