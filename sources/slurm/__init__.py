"""Slurm: jobs, nodes and topology, by its commands here, its commands on a login node, or slurmrestd."""
