"""What a training set asks of storage and of host processors. Pure."""

from __future__ import annotations

from coldaisle.analyzers.sizing.bounds import check_above_zero
from coldaisle.analyzers.sizing.quantity import Quantity, exact


def token_bandwidth(tokens_s: float, bytes_per_token: float = 4.0) -> Quantity:
    """Bytes/s of packed tokens (2 bytes below 65,536 words, else 4)."""
    check_above_zero("tokens/s", tokens_s)
    check_above_zero("bytes a token", bytes_per_token)
    return exact(
        tokens_s * bytes_per_token,
        "bytes/s",
        f"tok/s·bytes/token = {tokens_s:.4g}·{bytes_per_token:g}",
        "packed token files",
    )


def sample_bandwidth(samples_s: float, bytes_per_sample: float) -> Quantity:
    """Bytes/s of samples, images for one (110 kB of ImageNet)."""
    check_above_zero("samples/s", samples_s)
    check_above_zero("bytes a sample", bytes_per_sample)
    return exact(
        samples_s * bytes_per_sample,
        "bytes/s",
        f"samples/s·bytes/sample = {samples_s:.4g}·{bytes_per_sample:.4g}",
    )


def loader_cores(samples_s: float, cpu_seconds_per_sample: float) -> Quantity:
    """Cores that decode and augment: each is busy all the time, so add some."""
    check_above_zero("samples/s", samples_s)
    check_above_zero("CPU seconds a sample", cpu_seconds_per_sample)
    return exact(
        samples_s * cpu_seconds_per_sample,
        "cores",
        f"samples/s·cpu-s/sample = {samples_s:.4g}·{cpu_seconds_per_sample:.4g}",
    )


def small_file_rate(samples_s: float) -> Quantity:
    """Reads/s where each sample is a file of its own."""
    check_above_zero("samples/s", samples_s)
    return exact(samples_s, "1/s", "a read a sample")


def is_cached(dataset_bytes: float, host_memory_bytes: float, nodes: float = 1) -> bool:
    """Whether only the first epoch reads storage: page cache holds the set (half of the memory, over all nodes that share it)."""
    return dataset_bytes <= 0.5 * host_memory_bytes * nodes
