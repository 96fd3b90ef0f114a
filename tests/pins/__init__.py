"""Behaviour held fast while the code is moved: the same commands with two revisions have to leave the same
files.
"""
