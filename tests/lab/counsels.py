"""Advice made by hand, for the night of ``lab.snapshots``: for tests of the screen."""

from __future__ import annotations

from dataclasses import replace

from lab.diagnoses import HOSTILE, gpus_of, job_at, night
from lab.snapshots import AT

from coldaisle.analyzers.advice.advice import Advice, Counsel, Grade, Ground, Refused, Saving
from coldaisle.analyzers.advice.utilisation import Measured, Use, Utilisations
from coldaisle.analyzers.finding import Scope
from coldaisle.analyzers.sizing.quantity import Quantity, exact
from coldaisle.analyzers.snapshot import Snapshot

WEEKS_4 = 28 * 86400.0


def advice(id: str, action: str, **told: object) -> Advice:
    """A piece of it, with what is not told made up."""
    usual: dict[str, object] = {
        "scope": Scope(),
        "quantity": exact(8.0, "gpus", "GPUs without a kernel", "counted"),
        "saving": Saving(gpu_hours_per_week=Quantity(1344.0, 1100.0, 1344.0, "gpu_hours")),
        "grade": Grade.B,
        "grounds": (Ground("gpu.util", WEEKS_4, 64_512, 0.94, ("slurm:4655", "slurm:4711")),),
        "because": "8 of 8 GPUs ran no kernel for 2.2 h",
        "would_change": "a kernel on them",
    }
    return Advice(id=id, rule=id.partition(":")[0], action=action, **{**usual, **told})  # type: ignore[arg-type]


def night_advice(snapshot: Snapshot) -> tuple[Advice, ...]:
    """Three pieces: needs 16 racks of 4 nodes of 8 GPUs."""
    idle = gpus_of(snapshot, "r13n02")
    return (
        advice(
            "idle_gpus:slurm:4655",
            "reclaim 8 idle GPUs of job 4655 (rsun)",
            scope=Scope(racks=("r13",), nodes=("r13n02",), gpus=idle, jobs=job_at(snapshot, idle[0])),
            but="the job may wait for its next stage",
        ),
        advice(
            "cores:slurm:4802",
            "give job 4802 14 cores a GPU, not 6",
            scope=Scope(jobs=job_at(snapshot, "r09n01/0")),
            quantity=Quantity(14.0, 11.0, 18.0, "cores/gpu"),
            saving=Saving(gpu_hours_per_week=Quantity(700.0, 300.0, 900.0, "gpu_hours")),
            grade=Grade.C,
        ),
        advice("power:r07", "cap r07 at 600 W", scope=Scope(racks=("r07",)), saving=Saving(), grade=Grade.D),
    )


def measured(value: float, low: float, high: float, metric: str) -> Measured:
    """A utilisation of four weeks."""
    return Measured(Quantity(value, low, high, "ratio"), 64_512, 0.94, metric)


def counsel_of(snapshot: Snapshot) -> Counsel:
    """Four weeks of advice; what is achieved is known of memory alone."""
    use = Use(
        "",
        512,
        exact(300_000.0, "gpu_hours"),
        measured(0.91, 0.9, 0.92, "jobs"),
        measured(0.93, 0.91, 0.95, "gpu.util"),
        measured(0.62, 0.6, 0.65, "gpu.sm_active"),
        Measured(why="gpu.tensor_active is not exported"),
        measured(0.41, 0.38, 0.44, "gpu.dram_active"),
    )
    return Counsel(
        night_advice(snapshot),
        (Refused("scaling", Scope(racks=("r05",)), "only 3 of the 5 jobs that it takes"),),
        at=AT - 41.0,
        span_s=WEEKS_4,
        reclaimable=Quantity(9300.0, 7800.0, 10_200.0, "gpu_hours"),
        utilisations=Utilisations(use),
    )


def advised() -> Snapshot:
    """The night, with advice."""
    snapshot = night()
    return replace(snapshot, counsel=counsel_of(snapshot))


def hostile_advice() -> Snapshot:
    """Every text of it is somebody's attempt."""
    snapshot = night()
    one = advice(
        f"idle_gpus:{HOSTILE}",
        f"reclaim {HOSTILE}",
        scope=Scope(racks=(HOSTILE, "r13"), nodes=(HOSTILE,), gpus=(HOSTILE,), jobs=(HOSTILE,)),
        because=HOSTILE,
        would_change=HOSTILE,
        but=HOSTILE,
        quantity=exact(8.0, "gpus", HOSTILE, HOSTILE),
        grounds=(Ground(HOSTILE, 60.0, 1, 1.0, (HOSTILE,)),),
    )
    refused = Refused(f"scaling{HOSTILE}", Scope(jobs=(HOSTILE,)), HOSTILE)
    return replace(snapshot, counsel=replace(counsel_of(snapshot), given=(one,), refused=(refused,)))
