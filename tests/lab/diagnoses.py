"""Diagnoses made by hand, of the night of ``lab.snapshots``: for tests of the screen."""

from __future__ import annotations

from dataclasses import replace

from lab.snapshots import AT, make_snapshot

from coldaisle.analyzers.finding import (
    Confirm,
    Diagnosis,
    Evidence,
    Finding,
    Loss,
    Rejected,
    Scope,
    Severity,
    Urgency,
    Usefulness,
    Warming,
)
from coldaisle.analyzers.snapshot import EventView, Snapshot

HOSTILE = "evil\x1b[2J\x1b]52;c;aGk=\x07[red]x[/red]\u202e\r\n"


def _finding(id: str, **told: object) -> Finding:
    usual: dict[str, object] = {
        "detector": id.partition(":")[0],
        "variant": "core",
        "severity": Severity.WARNING,
        "since": AT - 600.0,
        "since_bound": False,
        "scope": Scope(),
        "victims": Scope(),
        "loss": Loss(0.1, 1.0),
        "confidence": 0.9,
        "title": "a finding",
        "cause": "a cause",
        "remedy": "do one thing; then another",
        "urgency": Urgency.TODAY,
        "urgency_why": "it goes on until somebody acts",
        "owner": "job owner",
        "opened_at": AT - 540.0,
    }
    return Finding(id=id, **{**usual, **told})  # type: ignore[arg-type]


def gpus_of(snapshot: Snapshot, *nodes: str) -> tuple[str, ...]:
    layout = snapshot.layout
    return tuple(layout.gpus[gpu].key for node in nodes for gpu in layout.nodes[layout.node_of[node]].gpus)


def job_at(snapshot: Snapshot, gpu: str) -> tuple[str, ...]:
    number = int(snapshot.gpu_job[snapshot.layout.gpu_of[gpu]])
    return (snapshot.jobs[number].id,) if number >= 0 else ()


def night_findings(snapshot: Snapshot) -> tuple[Finding, ...]:
    """Seven findings, as on a bad night: needs 16 racks of 4 nodes of 8 GPUs."""
    lost, lost_job = "r11n02/3", job_at(snapshot, "r11n02/3")
    peers = tuple(
        snapshot.layout.gpus[gpu].key
        for job in snapshot.jobs
        if job.id in lost_job
        for gpu in job.gpus
        if snapshot.layout.gpus[gpu].key != lost
    )
    hot = tuple(key for key in gpus_of(snapshot, "r07n01", "r07n02", "r07n03", "r07n04") if key[-1] != "5")
    starving, idle = gpus_of(snapshot, "r09n01", "r09n02", "r09n03"), gpus_of(snapshot, "r13n02")
    return (
        _finding(
            f"gpu_fault:{lost}",
            severity=Severity.CRITICAL,
            since=AT - 209.0,
            scope=Scope(racks=("r11",), nodes=("r11n02",), gpus=(lost,), jobs=lost_job),
            victims=Scope(gpus=peers),
            loss=Loss(1.0, 16.0),
            confidence=0.95,
            title="GPU lost (XID 79)",
            cause="the GPU fell off the bus: XID 79, no samples since 03:09:12, its node still answers",
            remedy="ask the owner to requeue; drain r11n02; power-cycle it, then RMA if it comes back",
            urgency=Urgency.NOW,
            urgency_why="the rest of the job waits for it until NCCL gives up",
            owner="hardware",
            confirm=(
                Confirm(("scontrol", "show", "job", "-d", "4790"), "login", "user"),
                Confirm(("dmesg", "-T"), "r11n02", "root"),
                Confirm(("nvidia-smi", "-q", "-i", "3"), "r11n02", "drained"),
            ),
            changed=("02:51 job 4790 checkpoint ok", "03:09 r11n02/3 XID: 79", "03:09 r11n02 link down"),
            explains=("XidError r11n02", "NodeGpu r11n02"),
            evidence=(
                Evidence("event.xid", lost, 79.0, "1", "class: bus"),
                Evidence("gpu.power", lost, 612.0, "W", "no sample for 60 s"),
                Evidence("gpu.sm_active", lost, 0.81, "ratio", "peers 0.16"),
                Evidence("port.tx", "r11n02/mlx5_0/1", 2.1e9, "B/s", "<= 1e6"),
            ),
            rejected=(
                Rejected("thermal_throttling", "71 C, 16 C below the limit"),
                Rejected("interconnect_degraded", "0 link errors"),
            ),
            missing=("kernel log: no right", "r11n02 probe: SSH denied, no job there"),
        ),
        _finding(
            "thermal_throttling:r07",
            since=AT - 520.0,
            scope=Scope(
                racks=("r07",), nodes=tuple(f"r07n0{n}" for n in range(1, 5)), gpus=hot, jobs=job_at(snapshot, hot[0])
            ),
            loss=Loss(0.18, 5.8),
            title=f"thermal throttling, {len(hot)} GPUs",
            cause="the GPUs slow themselves: core at 86 C, clock at 59 % of what it ran at",
            remedy="check inlet temperature, fans and coolant flow; cap power by 10 % as a stop-gap",
            urgency=Urgency.NOW,
            urgency_why="it lasts until the heat leaves, and a hot board may fall off the bus",
            owner="facility",
            confirm=(
                Confirm(("nvidia-smi", "-q", "-d", "PERFORMANCE,TEMPERATURE,CLOCK"), "r07n01", "user"),
            ),
            changed=("03:03 r07 inlet rises: 27 -> 31 C",),
            explains=("GpuTempHigh r07n01", "GpuTempHigh r07n02"),
            evidence=(
                Evidence("gpu.thermal_violation", "r07n01/0", 0.31, "ratio", ">= 0.02"),
                Evidence("gpu.temp", "r07n01/0", 86.0, "C", ">= 83"),
                Evidence("node.inlet_temp", "r07n01", 31.0, "C", "1 h before 27"),
            ),
            rejected=(Rejected("power_capping", "power at 61 % of the limit"),),
            missing=("gpu.mem_temp: not supported by this part or driver",),
        ),
        _finding(
            "kv_cache_pressure:chat-70b",
            since=AT - 400.0,
            scope=Scope(racks=("r15",), nodes=("r15n03",), gpus=gpus_of(snapshot, "r15n03")[:4]),
            loss=Loss(0.11, 0.9),
            title="KV full: 3.1 preempt/min, TTFT p99 6.2 s",
            urgency=Urgency.NOW,
            owner="serving",
            changed=("03:06 serve2 prompts 2x longer",),
        ),
        _finding(
            f"data_loader_starvation:{job_at(snapshot, starving[0])[0].removeprefix('slurm:')}",
            since=AT - 5500.0,
            since_bound=True,
            scope=Scope(racks=("r09",), nodes=("r09n01", "r09n02", "r09n03"), gpus=starving, jobs=job_at(snapshot, starving[0])),
            loss=Loss(0.4, 9.6),
            title=f"data loader starves (CPU), {len(starving)} GPUs",
            cause="GPUs wait for batches 40 % of the time while all 6 cores a GPU are busy",
            remedy="give the job 14 cores a GPU; or decode on the GPU",
            evidence=(Evidence("node.cpu_util", "r09n01", 0.98, "ratio", ">= 0.9"),),
        ),
        _finding(
            "idle_allocation:r13n02",
            since=AT - 7800.0,
            scope=Scope(racks=("r13",), nodes=("r13n02",), gpus=idle, jobs=job_at(snapshot, idle[0])),
            loss=Loss(1.0, 8.0),
            title="idle allocation, 8 GPUs, 2h10",
        ),
        _finding(
            "interconnect_degraded:r03n01/mlx5_1/1",
            since=AT - 190000.0,
            scope=Scope(racks=("r03",), nodes=("r03n01",), ports=("r03n01/mlx5_1/1",)),
            loss=Loss(0.1, 1.2),
            title="IB rail 1 lame",
            owner="fabric",
            evidence=(Evidence("port.xmit_wait", "r03n01/mlx5_1/1", 1200.0, "/s", "peers 3"),),
        ),
        _finding(
            "power_capping:r14",
            severity=Severity.INFO,
            scope=Scope(racks=("r14",), nodes=("r14n01",), gpus=gpus_of(snapshot, "r14n01")),
            loss=Loss(0.02, 0.5),
            title="power cap 600 of 700 W",
            urgency=Urgency.LATER,
            owner="facility",
        ),
    )  # fmt: skip


def night_diagnosis(snapshot: Snapshot) -> Diagnosis:
    """The night's findings with one that has cleared, alerts, and what it all costs."""
    findings = night_findings(snapshot)
    cleared = _finding(
        "checkpoint_stall:4711",
        title="checkpoint stalls, 32 GPUs",
        scope=Scope(jobs=("slurm:4711",)),
        since=AT - 3000.0,
        opened_at=AT - 2900.0,
        cleared_at=AT - 1500.0,
        owner="storage",
    )
    return Diagnosis(
        at=snapshot.at,
        findings=findings,
        cleared=(cleared,),
        unexplained=("DiskFull st01", "NtpSkew r03n01"),
        usefulness=Usefulness(
            allocated=448,
            useful=0.9062,
            lost=42.0,
            by_cause=(
                ("gpu_fault", 16.0), ("data_loader_starvation", 9.6), ("idle_allocation", 8.0),
                ("thermal_throttling", 5.8), ("interconnect_degraded", 1.2),
            ),
        ),
    )  # fmt: skip


def night(snapshot: Snapshot | None = None) -> Snapshot:
    """The night with its diagnosis, and alerts that fire."""
    snapshot = snapshot or make_snapshot()
    alerts = (
        EventView(AT - 900, "st01", "alert", "DiskFull"),
        EventView(AT - 300, "r03n01", "alert", "NtpSkew: 4 s"),
    )
    snapshot = replace(
        snapshot, events=tuple(sorted((*snapshot.events, *alerts), key=lambda event: event.at))
    )
    return replace(snapshot, diagnosis=night_diagnosis(snapshot))


def warming(snapshot: Snapshot | None = None) -> Snapshot:
    """The first polls of a dashboard without a past: nothing is found, and nothing could be yet."""
    snapshot = snapshot or make_snapshot()
    diagnosis = Diagnosis(
        at=snapshot.at,
        warming=(
            Warming("thermal_throttling", 3, 8),
            Warming("data_loader_starvation", 40, 120, "s"),
            Warming("straggler", 40, 120, "s"),
        ),
        usefulness=Usefulness(allocated=448, useful=1.0, lost=0.0),
    )
    return replace(snapshot, diagnosis=diagnosis)


def calm(snapshot: Snapshot | None = None) -> Snapshot:
    """Everything has been looked at, and nothing is wrong."""
    snapshot = snapshot or make_snapshot()
    useful = Usefulness(allocated=448, useful=1.0, lost=0.0)
    return replace(snapshot, diagnosis=Diagnosis(at=snapshot.at, usefulness=useful))


def without(snapshot: Snapshot, id: str, cleared_at: float) -> Snapshot:
    """The same at a later instant, with one finding cleared."""
    was = snapshot.diagnosis
    gone = next(one for one in was.findings if one.id == id)
    diagnosis = replace(
        was,
        at=cleared_at,
        findings=tuple(one for one in was.findings if one.id != id),
        cleared=(replace(gone, cleared_at=cleared_at), *was.cleared),
    )
    return replace(snapshot, at=cleared_at, diagnosis=diagnosis)


def hostile(snapshot: Snapshot | None = None) -> Snapshot:
    """Every text of a finding at its worst."""
    snapshot = night(snapshot)
    bad = _finding(
        f"gpu_fault:{HOSTILE}",
        title=HOSTILE,
        cause=HOSTILE * 20,
        remedy=HOSTILE,
        urgency_why=HOSTILE,
        owner=HOSTILE,
        urgency=Urgency.NOW,
        severity=Severity.CRITICAL,
        scope=Scope(racks=(HOSTILE,), nodes=(HOSTILE,), gpus=(HOSTILE,), jobs=(HOSTILE,), servers=(HOSTILE,)),
        changed=(HOSTILE,),
        explains=(HOSTILE,),
        missing=(HOSTILE,),
        rejected=(Rejected(HOSTILE, HOSTILE),),
        evidence=(Evidence(HOSTILE, HOSTILE, float("nan"), "no unit", HOSTILE),),
        confirm=(Confirm(("echo", HOSTILE), HOSTILE, HOSTILE), Confirm(("ls", "a b"), "login", "user")),
    )
    diagnosis = replace(
        snapshot.diagnosis, findings=(bad, *snapshot.diagnosis.findings), unexplained=(HOSTILE,)
    )
    return replace(snapshot, diagnosis=diagnosis)
