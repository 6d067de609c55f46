"""A cluster that does not exist, with honest physics; same seed, same numbers.

Nothing is imported here: the package is heavy (numpy) and loaded when a simulator is wanted.
"""
