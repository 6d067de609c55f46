"""What a job says of itself: its name, partition, owner's kind, and the command lines on its GPUs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from coldaisle.analyzers.finding import Workload
from coldaisle.analyzers.window import Window
from coldaisle.sources.cluster import Job

_WORD = re.compile(r"[a-z0-9]+")
_KINDS = {
    Workload.TRAINING: ("pytorchjob", "mpijob", "tfjob", "trainjob", "jaxjob", "paddlejob", "xgboostjob"),
    Workload.INFERENCE: (
        "deployment", "statefulset", "leaderworkerset", "inferenceservice", "rayservice", "replicaset",
    ),
    Workload.INTERACTIVE: ("notebook", "workspace"),
}  # fmt: skip
_WORDS = {
    Workload.INTERACTIVE: (
        "interactive", "interact", "jupyter", "jupyterlab", "jupyterhub", "notebook", "ipykernel", "ipython", "dashboard",
        "ood", "vscode", "bash", "zsh", "sh", "salloc", "desktop", "rstudio", "debug", "shell",
    ),
    Workload.INFERENCE: (
        "vllm", "sglang", "tritonserver", "tgi", "serve", "serving", "server", "inference", "infer", "trtllm",
        "endpoint", "ollama", "lmdeploy", "llamacpp", "embed", "embedding", "decode", "chat",
    ),
    Workload.TRAINING: (
        "train", "training", "trainer", "pretrain", "pretraining", "finetune", "finetuning", "sft", "lora", "dpo", "grpo",
        "ddp", "fsdp", "deepspeed", "megatron", "torchrun", "nemo", "hpo",
    ),
}  # fmt: skip
"""Whole words; the first class with one of them holds."""


def hinted(job: Job) -> Workload | None:
    """What its scheduler, name or owner says; None: nothing."""
    if job.workload in tuple(Workload):
        return Workload(job.workload)
    if job.workload_key is not None:
        kind = job.workload_key[1].lower()
        for workload, kinds in _KINDS.items():
            if kind in kinds:
                return workload
    if job.name.startswith("sys/dashboard"):
        return Workload.INTERACTIVE
    return named(job.name) or (
        Workload.INTERACTIVE if named(job.partition or "") is Workload.INTERACTIVE else None
    )


def named(text: str) -> Workload | None:
    """By the words of a name or a command line; other people's text."""
    words = set(_WORD.findall(text[:400].lower()))
    return next((workload for workload, known in _WORDS.items() if not words.isdisjoint(known)), None)


def commanded(window: Window, job: Job) -> Workload | None:
    """By the command lines of the processes on its GPUs; None: none says."""
    uuids = {window.layout.gpus[gpu].uuid for gpu in job.gpus}
    nodes = {window.layout.nodes[window.layout.gpus[gpu].node].key for gpu in job.gpus}
    found = (
        named(process.command or "")
        for node in nodes
        for process in window.snapshot.processes.get(node, ())
        if process.gpu.uuid in uuids
    )
    return next((one for one in found if one is not None), None)


def workload_of(window: Window, job: Job) -> Workload | None:
    """By name first, then by command lines; a server on its GPUs beats both. None: nothing says."""

    def make() -> Workload | None:
        if any(set(server.gpus) & set(job.gpus) for server in window.layout.servers):
            return Workload.INFERENCE
        return hinted(job) or (commanded(window, job) if window.snapshot.processes else None)

    return window.cached(("workload", job.id), make)


def spelled(names: Iterable[str], most: int = 3) -> str:
    """``a, b, c and 5 more``"""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
