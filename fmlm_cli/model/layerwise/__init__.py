"""What is done to an encoder layer by layer, in place: compiling, and computing again in the backward."""
