"""Objectives: what is learnt. Each makes batches of rows (`prepare`), and of batches a summed `loss`."""
