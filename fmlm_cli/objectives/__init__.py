"""Objectives: what is learnt. Each makes batches from rows (`prepare`) and a summed loss from batches
(`loss`).
"""
