"""Its presence puts this folder on the path: tests import ``lab.snapshots``, never ``tests.lab.snapshots``."""
