"""What the numbers mean: snapshots of the cluster, later detectors, triage, sizing and audit."""
