"""What is drawn in a terminal: masked rows, curves."""
