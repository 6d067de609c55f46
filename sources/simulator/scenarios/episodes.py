"""Every condition and what it could be mistaken for, as episodes: a program, what happens to it, and from when.

Strengths are drawn widely, from hardly noticeable to ruinous: they follow what such causes do, not what is easy to find.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from coldaisle.sources.simulator.plan import Part, models
from coldaisle.sources.simulator.scenarios.labels import Scenario
from coldaisle.sources.simulator.scenarios.serving import Service
from coldaisle.sources.simulator.scenarios.work import Phase
from coldaisle.sources.simulator.scenarios.world import SLOTS, Cause, Feed, Piece, Told

Draw = np.random.Generator
Maker = Callable[[Scenario, Part, Draw], Piece]
FOREVER = float("inf")
PROFILES = ("llm-pretrain", "train-moe", "tp-pp-llm", "sft", "vit-ddp", "diffusion")

_SCENARIOS: dict[str, Scenario] = {}
_MAKERS: dict[str, Maker] = {}


def scenario(
    name: str, help: str, condition: str = "", like: tuple[str, ...] = (), variant: str = "", minutes: float = 20.0,
    nodes: int = 2, needs: tuple[str, ...] = (),
) -> Callable[[Maker], Maker]:  # fmt: skip
    """Register an episode."""

    def register(make: Maker) -> Maker:
        _SCENARIOS[name] = Scenario(name, help, condition, like, variant, minutes, nodes, needs)
        _MAKERS[name] = make
        return make

    return register


SCENARIOS: Mapping[str, Scenario] = _SCENARIOS


def piece(name: str, part: Part, draw: Draw) -> Piece:
    """An episode with its numbers drawn."""
    return _MAKERS[name](_SCENARIOS[name], part, draw)


def program(draw: Draw, part: Part, profile: str = "", **over: float) -> dict[str, float]:
    """A training loop as measured programs run; steps of one to six seconds."""
    row = models()["training"][profile or str(draw.choice(PROFILES))]
    step = float(np.clip(row["step"] * draw.uniform(0.8, 1.3), 1.0, 6.5))
    comm, host = row["comm"] * step, max(row["host"], 0.01) * step
    compute = max(step - comm - host, 0.3 * step)
    rate = part.nvlink / 4.5e11
    made = {
        "compute": compute, "host": host * 0.5, "comm": comm, "nvlink": row["nvlink"] * step * rate,
        "fabric": row["fabric"] * step * part.port / 5e10, "pcie": row["pcie"] * step, "overlap": float(draw.uniform(0.7, 0.92)),
        "batch": compute * float(draw.uniform(0.2, 0.6)), "clock_share": row["clock"] * float(draw.uniform(0.75, 1.0)),
        "sm": row["sm"], "tensor": row["tensor"], "dram": row["dram"],
        "save_every": FOREVER, "save_for": row["pause"] or 10.0,
    }  # fmt: skip
    made.update(over)
    return made


def _at(draw: Draw) -> float:
    """When a cause begins: after some healthy minutes."""
    return float(draw.uniform(300, 480))


def _train(
    s: Scenario, part: Part, draw: Draw, profile: str = "", nodes: int | None = None, **over: float
) -> Piece:
    return Piece(
        s, part, nodes or s.nodes, program(draw, part, profile, **over), memory=float(draw.uniform(0.6, 0.93))
    )


# --- healthy work ----------------------------------------------------------------------------------


@scenario(
    "healthy_training",
    "a training job that nothing hinders",
    like=("thermal_throttling", "straggler", "data_loader_starvation"),
)
def _healthy(s: Scenario, part: Part, draw: Draw) -> Piece:
    return _train(s, part, draw)


@scenario(
    "tp_pp",
    "tensor and pipeline parallel: stages differ, all is well",
    like=("straggler", "communication_stall"),
)
def _tp_pp(s: Scenario, part: Part, draw: Draw) -> Piece:
    stage = tuple(1.0 if g < SLOTS else 0.86 for g in range(2 * SLOTS))
    activity = tuple(1.0 if g < SLOTS else 1.12 for g in range(2 * SLOTS))
    made = _train(s, part, draw, "tp-pp-llm", 2)
    return replace(made, role=stage, role_sm=activity, rails=(0, 1))


@scenario("moe", "experts are never loaded alike", like=("straggler",))
def _moe(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = _train(s, part, draw, "train-moe")
    return replace(made, role=tuple(draw.uniform(0.93, 1.0, s.nodes * SLOTS).tolist()))


@scenario(
    "grad_accumulation",
    "long compute, rare exchange, at the power cap",
    like=("data_loader_starvation", "power_capping"),
)
def _accumulation(s: Scenario, part: Part, draw: Draw) -> Piece:
    return _train(
        s, part, draw, "llm-pretrain", compute=float(draw.uniform(5, 7)), sm=0.97, tensor=0.66, dram=0.35
    )


@scenario(
    "dense_gemm", "dense GEMMs at the power limit: normal", like=("power_capping", "thermal_throttling")
)
def _gemm(s: Scenario, part: Part, draw: Draw) -> Piece:
    return _train(
        s, part, draw, "llm-pretrain", sm=0.97, tensor=float(draw.uniform(0.6, 0.7)), dram=0.3, host=0.01
    )


@scenario(
    "eval_pause",
    "an evaluation on the CPU now and then",
    like=("data_loader_starvation", "checkpoint_stall", "communication_stall"),
)
def _eval(s: Scenario, part: Part, draw: Draw) -> Piece:
    return _train(
        s, part, draw, "sft", rest_every=float(draw.uniform(200, 420)), rest_for=float(draw.uniform(8, 18))
    )


@scenario("notebook", "a person at a notebook", like=("data_loader_starvation", "idle_allocation"), nodes=1)
def _notebook(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = _train(
        s,
        part,
        draw,
        "sft",
        1,
        rest_every=float(draw.uniform(5, 25)),
        rest_for=float(draw.uniform(15, 70)),
        comm=0.0,
        nvlink=0.0,
    )
    return replace(
        made,
        job_gpus=(0,),
        name="interactive-jupyter",
        workload="interactive",
        memory=0.3,
        job_started=-1800.0,
    )


@scenario(
    "low_rate_inference",
    "a server that is asked little",
    like=("data_loader_starvation", "idle_allocation", "kv_cache_pressure"),
    nodes=1,
)
def _low_rate(s: Scenario, part: Part, draw: Draw) -> Piece:
    return Piece(
        s,
        part,
        1,
        None,
        services=tuple(_service(part, arrivals=float(draw.uniform(0.15, 0.5))) for _ in range(4)),
        memory=0.9,
    )


@scenario("free_nodes", "nobody is here", like=("idle_allocation", "telemetry_gap", "gpu_fault"), nodes=1)
def _free(s: Scenario, part: Part, draw: Draw) -> Piece:
    return Piece(s, part, 1)


# --- data loader -----------------------------------------------------------------------------------


def _starving(s: Scenario, part: Part, draw: Draw, why: str) -> Piece:
    over = {"batch": 0.0}
    made = _train(s, part, draw, "vit-ddp" if draw.random() < 0.5 else "diffusion", **over)
    assert made.program is not None
    made.program["batch"] = made.program["compute"] * 0.8
    factor = float(draw.uniform(1.6, 4.0)) / 0.8
    at = _at(draw)
    return replace(
        made, loader=why, cpu=0.4, causes=(Cause("loader", factor, start=at),), start=at, evident_after=10.0
    )


@scenario(
    "starving_cpu",
    "too few CPUs decode the data",
    "data_loader_starvation",
    ("idle_allocation", "checkpoint_stall", "communication_stall"),
    "cpu",
    needs=("host",),
)
def _cpu(s: Scenario, part: Part, draw: Draw) -> Piece:
    return _starving(s, part, draw, "cpu")


@scenario(
    "starving_io",
    "the file system does not deliver",
    "data_loader_starvation",
    ("checkpoint_stall", "communication_stall"),
    "io",
    needs=("host",),
)
def _io(s: Scenario, part: Part, draw: Draw) -> Piece:
    return _starving(s, part, draw, "io")


@scenario(
    "starving_host",
    "one Python thread cannot keep up",
    "data_loader_starvation",
    ("communication_stall",),
    "host",
)
def _host(s: Scenario, part: Part, draw: Draw) -> Piece:
    return _starving(s, part, draw, "host")


# --- heat ------------------------------------------------------------------------------------------


@scenario(
    "thermal_gpu",
    "the paste of one board has dried",
    "thermal_throttling",
    ("straggler", "power_capping"),
    "core",
    needs=(),
)
def _one_hot(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = _train(s, part, draw, "llm-pretrain")
    gpu = int(draw.integers(s.nodes * SLOTS))
    at = _at(draw)
    return replace(
        made,
        roots=(gpu,),
        causes=(Cause("cooling", float(draw.uniform(3.0, 6.0)), (gpu,), at, ramp=120),),
        start=at,
        evident_after=90,
    )


@scenario(
    "thermal_node",
    "a fan of one node has stopped",
    "thermal_throttling",
    ("straggler", "power_capping"),
    "core",
)
def _node_hot(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = _train(s, part, draw, "llm-pretrain")
    at = _at(draw)
    return replace(made, roots=tuple(range(8)), root_nodes=(0,), causes=(Cause("cooling", float(draw.uniform(3.0, 5.0)), tuple(range(8)), at, ramp=60),),
                   start=at, evident_after=90)  # fmt: skip


@scenario(
    "thermal_room",
    "the coolant of a rack fails",
    "thermal_throttling",
    ("power_capping", "straggler"),
    "core",
    nodes=4,
)
def _room(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = _train(s, part, draw, "llm-pretrain", 4)
    at = _at(draw)
    return replace(made, roots=tuple(range(32)), root_nodes=(0, 1, 2, 3), root_rack=True, start=at, evident_after=100,
                   causes=(Cause("inlet", float(draw.uniform(44, 52)), None, at, ramp=150),))  # fmt: skip


@scenario(
    "thermal_hbm",
    "HBM overheats under a cool core",
    "thermal_throttling",
    ("straggler", "power_capping"),
    "hbm",
)
def _hbm(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = _train(s, part, draw, "llm-pretrain")
    gpu = int(draw.integers(s.nodes * SLOTS))
    at = _at(draw)
    return replace(
        made,
        roots=(gpu,),
        causes=(Cause("hbm", float(draw.uniform(2.6, 3.6)), (gpu,), at, ramp=60),),
        start=at,
        evident_after=60,
    )


@scenario("hot_but_fine", "84 C and not throttling", like=("thermal_throttling",))
def _fine(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = _train(s, part, draw, "sft")
    return replace(made, causes=(Cause("inlet", float(draw.uniform(28, 30)), None, 0.0, is_cause=False),))


@scenario(
    "app_clocks", "clocks locked by the operator", like=("thermal_throttling", "power_capping", "straggler")
)
def _locked(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = _train(s, part, draw)
    return replace(
        made, causes=(Cause("app_clock", float(draw.uniform(0.7, 0.9)), None, 0.0, is_cause=False),)
    )


# --- power -----------------------------------------------------------------------------------------


@scenario(
    "operator_cap",
    "the operator lowered the limit of a node",
    "power_capping",
    ("thermal_throttling", "straggler"),
    "operator",
)
def _cap(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = _train(s, part, draw, "llm-pretrain")
    at = _at(draw)
    return replace(made, roots=tuple(range(16)), root_nodes=(0, 1), start=at, evident_after=5,
                   causes=(Cause("limit", float(draw.uniform(0.5, 0.72)), None, at),))  # fmt: skip


@scenario(
    "unequal_limits",
    "one board of a job has a lower limit",
    "power_capping",
    ("straggler", "thermal_throttling"),
    "unequal",
)
def _unequal(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = _train(s, part, draw, "llm-pretrain")
    gpu = int(draw.integers(16))
    at = _at(draw)
    return replace(
        made,
        roots=(gpu,),
        start=at,
        evident_after=5,
        causes=(Cause("limit", float(draw.uniform(0.45, 0.65)), (gpu,), at),),
    )


@scenario(
    "power_brake",
    "the power supply pulls the brake",
    "power_capping",
    ("thermal_throttling", "straggler"),
    "brake",
)
def _brake(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = _train(s, part, draw, "llm-pretrain")
    at = _at(draw)
    return replace(
        made,
        roots=tuple(range(8)),
        root_nodes=(0,),
        start=at,
        evident_after=2,
        causes=(Cause("brake", 1.0, tuple(range(8)), at),),
    )


# --- links -----------------------------------------------------------------------------------------


@scenario(
    "ib_saturation",
    "the exchange fills InfiniBand",
    "interconnect_saturation",
    ("communication_stall", "data_loader_starvation"),
    "ib",
    nodes=4,
)
def _ib(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = _train(s, part, draw, "llm-pretrain", 4, overlap=0.4)
    assert made.program is not None
    made.program["fabric"] = 0.3 * part.port * made.program["compute"]
    at = _at(draw)
    return replace(
        made, start=at, evident_after=5, causes=(Cause("traffic", float(draw.uniform(5, 10)), None, at),)
    )


@scenario(
    "nvlink_saturation",
    "the exchange fills NVLink",
    "interconnect_saturation",
    ("communication_stall",),
    "nvlink",
    nodes=1,
)
def _nvlink(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = _train(s, part, draw, "train-moe", 1, overlap=0.4)
    assert made.program is not None
    made.program["nvlink"] = 0.3 * part.nvlink * made.program["compute"]
    at = _at(draw)
    return replace(
        made, start=at, evident_after=5, causes=(Cause("traffic", float(draw.uniform(5, 10)), None, at),)
    )


@scenario("bursty_ddp", "short bursts, 30 % on average", like=("interconnect_saturation",), nodes=4)
def _bursty(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = _train(s, part, draw, "llm-pretrain", 4, overlap=0.6)
    assert made.program is not None
    made.program["fabric"] = 0.3 * part.port * (made.program["compute"] + 0.2)
    return made


@scenario(
    "lame_rail",
    "one InfiniBand rail runs at a fraction",
    "interconnect_degraded",
    ("straggler", "communication_stall"),
    "rail",
    nodes=4,
    needs=("host",),
)
def _lame(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = _train(s, part, draw, "train-moe", 4, overlap=0.6)
    assert made.program is not None
    made.program["fabric"] = 0.35 * part.port * made.program["compute"]
    gpu = int(draw.integers(32))
    at = _at(draw)
    left = float(draw.uniform(0.1, 0.25))
    return replace(made, roots=(gpu,), start=at, evident_after=5, causes=(Cause("rail", left, (gpu,), at),),
                   feeds=(Feed("port_rate", at, where=(gpu,), value=left),))  # fmt: skip


@scenario(
    "ib_errors",
    "a cable with errors",
    "interconnect_degraded",
    ("communication_stall", "straggler"),
    "errors",
    nodes=4,
    needs=("host",),
)
def _errors(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = _train(s, part, draw, "train-moe", 4, overlap=0.6)
    assert made.program is not None
    made.program["fabric"] = 0.35 * part.port * made.program["compute"]
    gpu = int(draw.integers(32))
    at = _at(draw)
    return replace(made, roots=(gpu,), start=at, evident_after=5, causes=(Cause("rail", float(draw.uniform(0.15, 0.4)), (gpu,), at),),
                   feeds=(Feed("port_errors", at, where=(gpu,), value=float(draw.uniform(5, 400))),))  # fmt: skip


@scenario("idle_rails", "a job that uses two of eight rails", like=("interconnect_degraded",))
def _idle_rails(s: Scenario, part: Part, draw: Draw) -> Piece:
    return replace(_train(s, part, draw, "tp-pp-llm"), rails=(2, 6))


@scenario(
    "pcie_degraded", "a board's PCIe link lost its lanes", "interconnect_degraded", ("straggler",), "pcie"
)
def _pcie(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = _train(s, part, draw, "vit-ddp", pcie=3e10)
    gpu = int(draw.integers(16))
    at = _at(draw)
    return replace(made, roots=(gpu,), start=at, evident_after=5, causes=(Cause("slow", float(draw.uniform(1.2, 2.0)), (gpu,), at), Cause("pcie", 0.25, (gpu,), at)),
                   feeds=(Feed("pcie_width", at, where=(gpu,), value=4.0),))  # fmt: skip


@scenario(
    "pcie_gen_idle",
    "the link rests at a lower generation while idle",
    like=("interconnect_degraded",),
    nodes=1,
)
def _gen(s: Scenario, part: Part, draw: Draw) -> Piece:
    return Piece(s, part, 1, feeds=(Feed("pcie_gen", 0.0, value=1.0),))


@scenario(
    "nvlink_down",
    "links of a board went down",
    "interconnect_degraded",
    ("straggler", "communication_stall"),
    "nvlink",
    nodes=1,
)
def _links(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = _train(s, part, draw, "train-moe", 1, overlap=0.6)
    assert made.program is not None
    made.program["nvlink"] = 0.4 * part.nvlink * made.program["compute"]
    gpu = int(draw.integers(8))
    at = _at(draw)
    return replace(made, roots=(gpu,), start=at, evident_after=5, causes=(Cause("nvlink", float(draw.uniform(0.15, 0.4)), (gpu,), at),),
                   feeds=(Feed("nvlink_links", at, where=(gpu,), value=float(part.links // 3)),))  # fmt: skip


# --- stalls and stragglers -------------------------------------------------------------------------


@scenario(
    "hung",
    "one rank is gone, all others wait for ever",
    "communication_stall",
    ("idle_allocation", "straggler", "gpu_fault"),
    "hung",
)
def _hung(s: Scenario, part: Part, draw: Draw) -> Piece:
    gpu = int(draw.integers(16))
    at = _at(draw)
    return replace(
        _train(s, part, draw),
        roots=(gpu,),
        start=at,
        evident_after=8,
        loss=1.0,
        causes=(Cause("absent", 1.0, (gpu,), at),),
    )


@scenario(
    "hang_after_finish",
    "the work is done, the processes do not end",
    "communication_stall",
    ("idle_allocation",),
    "finished",
    minutes=25,
)
def _finish(s: Scenario, part: Part, draw: Draw) -> Piece:
    at = _at(draw)
    return replace(
        _train(s, part, draw),
        start=at,
        evident_after=8,
        loss=1.0,
        causes=(Cause("phase", float(Phase.HUNG), None, at),),
    )


@scenario(
    "long_compile",
    "ten minutes of compilation before the first step",
    like=("communication_stall", "idle_allocation"),
    minutes=20,
)
def _compile(s: Scenario, part: Part, draw: Draw) -> Piece:
    return replace(_train(s, part, draw, starts_for=float(draw.uniform(420, 620))), job_started=0.0)


@scenario(
    "straggler_clock",
    "one board is slower, for no reason that it tells",
    "straggler",
    ("communication_stall", "thermal_throttling"),
    "clock",
)
def _slow_clock(s: Scenario, part: Part, draw: Draw) -> Piece:
    gpu = int(draw.integers(16))
    at = _at(draw)
    return replace(_train(s, part, draw, "llm-pretrain"), roots=(gpu,), start=at, evident_after=5,
                   causes=(Cause("app_clock", float(draw.uniform(0.45, 0.75)), (gpu,), at),))  # fmt: skip


@scenario(
    "straggler_cpu",
    "a neighbour takes the CPUs of one node",
    "straggler",
    ("communication_stall", "data_loader_starvation"),
    "cpu",
)
def _slow_cpu(s: Scenario, part: Part, draw: Draw) -> Piece:
    at = _at(draw)
    return replace(_train(s, part, draw, "sft"), roots=tuple(range(8)), root_nodes=(0,), start=at, evident_after=5,
                   causes=(Cause("slow", float(draw.uniform(1.3, 2.2)), tuple(range(8)), at),), feeds=(Feed("cpu_busy", at, where=(0,)),))  # fmt: skip


# --- serving ---------------------------------------------------------------------------------------


def _service(part: Part, **over: float) -> Service:
    room = part.memory * 2 * 0.9 - 1.4e11
    tokens = float(np.clip(room / 3.3e5, 4e4, 1.2e6))
    return replace(
        Service(tokens, 256, 1.0, 1900, 700, base=0.02, per_token=4e-8 * 3.35e12 / part.hbm), **over
    )  # type: ignore[arg-type]


def _asked(part: Part, share: float, **over: float) -> Service:
    """A server whose cache is filled to a share on average, by Little's law."""
    s = _service(part, **over)
    tokens = s.prompt + s.answer / 2
    running = share * s.kv_tokens / tokens
    seconds = s.answer * (s.base + s.per_token * share * s.kv_tokens) * 1.2
    return replace(s, arrivals=running / seconds)


@scenario(
    "kv_pressure",
    "prompts got longer: requests are pushed out",
    "kv_cache_pressure",
    ("request_queueing",),
    "preempting",
    nodes=1,
)
def _kv(s: Scenario, part: Part, draw: Draw) -> Piece:
    services = tuple(_asked(part, float(draw.uniform(0.4, 0.55)), max_running=512) for _ in range(4))
    at = _at(draw)
    which = int(draw.integers(4))
    return Piece(s, part, 1, services=services, memory=0.92, start=at, evident_after=30,
                 causes=(Cause("arrivals", float(draw.uniform(2.8, 5.0)), (which,), at),))  # fmt: skip


@scenario(
    "kv_full_healthy", "the cache is full of prefixes, nobody waits", like=("kv_cache_pressure",), nodes=1
)
def _kv_fine(s: Scenario, part: Part, draw: Draw) -> Piece:
    return Piece(
        s, part, 1, services=tuple(_asked(part, 0.4, keeps_prefixes=1.0) for _ in range(4)), memory=0.92
    )


@scenario(
    "seq_limited",
    "the batch is full of sequences, the cache is not",
    "request_queueing",
    ("kv_cache_pressure",),
    "limit",
    nodes=1,
)
def _seq(s: Scenario, part: Part, draw: Draw) -> Piece:
    services = tuple(
        _asked(part, 0.3, max_running=float(draw.integers(24, 48)), prompt=600, answer=400) for _ in range(4)
    )
    services = tuple(
        replace(
            x, arrivals=0.6 * x.max_running / (x.answer * (x.base + x.per_token * 0.2 * x.kv_tokens) * 1.2)
        )
        for x in services
    )
    at = _at(draw)
    return Piece(s, part, 1, services=services, memory=0.92, start=at, evident_after=30,
                 causes=(Cause("arrivals", float(draw.uniform(2.2, 3.5)), None, at),))  # fmt: skip


@scenario(
    "zero_traffic",
    "a server that nobody asks",
    like=("idle_allocation", "kv_cache_pressure"),
    minutes=40,
    nodes=1,
)
def _zero(s: Scenario, part: Part, draw: Draw) -> Piece:
    return Piece(s, part, 1, services=tuple(_service(part, arrivals=0.0) for _ in range(4)), memory=0.92)


# --- memory, storage, idleness ---------------------------------------------------------------------


@scenario(
    "oom",
    "memory grows until a process dies",
    "memory_exhaustion",
    ("gpu_fault", "communication_stall"),
    "device",
)
def _oom(s: Scenario, part: Part, draw: Draw) -> Piece:
    gpu = int(draw.integers(16))
    at = _at(draw)
    grows = float(draw.uniform(200, 400))
    return replace(_train(s, part, draw), memory=0.7, roots=(gpu,), start=at, evident_after=grows * 0.8, loss=1.0,
                   causes=(Cause("memory", 0.995, (gpu,), at, ramp=grows), Cause("absent", 1.0, (gpu,), at + grows + 20)),
                   told=(Told(at + grows + 20, "xid", gpu, "XID 31: GPU memory page fault"),))  # fmt: skip


@scenario("preallocator", "93 % by design from the start", like=("memory_exhaustion",))
def _prealloc(s: Scenario, part: Part, draw: Draw) -> Piece:
    return replace(_train(s, part, draw), memory=float(draw.uniform(0.9, 0.96)))


@scenario("checkpoint_dear", "checkpoints take a tenth of the time and more", "checkpoint_stall", ("data_loader_starvation", "idle_allocation"), "periodic",
          minutes=35, needs=("host",))  # fmt: skip
def _dear(s: Scenario, part: Part, draw: Draw) -> Piece:
    every = float(draw.uniform(220, 330))
    made = _train(s, part, draw, "llm-pretrain", save_every=every, save_for=float(draw.uniform(2, 4)))
    at = 240.0
    return replace(
        made,
        start=at,
        evident_after=2 * every,
        causes=(Cause("saves", float(draw.uniform(15, 30)), None, at),),
    )


@scenario(
    "checkpoint_cheap",
    "a few seconds every few minutes",
    like=("checkpoint_stall", "data_loader_starvation"),
    minutes=30,
)
def _cheap(s: Scenario, part: Part, draw: Draw) -> Piece:
    return _train(
        s,
        part,
        draw,
        "llm-pretrain",
        save_every=float(draw.uniform(240, 400)),
        save_for=float(draw.uniform(3, 7)),
    )


@scenario(
    "power_dips", "a dip every 18 s, without any write", like=("checkpoint_stall", "data_loader_starvation")
)
def _dips(s: Scenario, part: Part, draw: Draw) -> Piece:
    return _train(s, part, draw, "llm-pretrain", rest_every=18.0, rest_for=float(draw.uniform(0.8, 1.6)))


@scenario(
    "idle_after_start",
    "a job that ended its work and kept its GPUs",
    "idle_allocation",
    ("data_loader_starvation", "communication_stall"),
    "loaded",
    minutes=45,
)
def _idle(s: Scenario, part: Part, draw: Draw) -> Piece:
    at = 240.0
    return replace(
        _train(s, part, draw),
        start=at,
        evident_after=30 * 60.0,
        loss=1.0,
        causes=(Cause("phase", float(Phase.IDLE), None, at),),
    )


@scenario(
    "idle_some",
    "a job that uses half of its GPUs",
    "idle_allocation",
    ("straggler",),
    "some",
    minutes=45,
    nodes=1,
)
def _some(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = _train(s, part, draw, "sft", 1)
    used = int(draw.choice((1, 2, 4)))
    return replace(made, start=0.0, evident_after=30 * 60.0, loss=1 - used / 8, roots=tuple(range(used, 8)),
                   feeds=(Feed("unused", 0.0, where=tuple(range(used, 8))),))  # fmt: skip


# --- faults and feeds ------------------------------------------------------------------------------


def _fault(s: Scenario, part: Part, draw: Draw, xid: str, feed: str, *, stops: bool = True) -> Piece:
    gpu = int(draw.integers(16))
    at = _at(draw)
    causes = (Cause("dead", 1.0, (gpu,), at),) if stops else ()
    feeds = ((Feed(feed, at, where=(gpu,)),) if feed else ()) + (
        Feed("xid", at, where=(gpu,), value=float(xid.split()[1].rstrip(":"))),
    )
    return replace(_train(s, part, draw), roots=(gpu,), start=at, evident_after=0.0, loss=1.0 if stops else 0.0, causes=causes,
                   told=(Told(at, "xid", gpu, xid),), feeds=feeds)  # fmt: skip


@scenario(
    "xid79_gone",
    "a board falls off the bus, its series end",
    "gpu_fault",
    ("communication_stall", "telemetry_gap", "idle_allocation"),
    "lost",
)
def _gone(s: Scenario, part: Part, draw: Draw) -> Piece:
    return _fault(s, part, draw, "XID 79: GPU has fallen off the bus", "gone")


@scenario(
    "xid79_frozen",
    "a board falls off the bus, its exporter serves a corpse",
    "gpu_fault",
    ("communication_stall", "telemetry_gap"),
    "lost",
)
def _frozen(s: Scenario, part: Part, draw: Draw) -> Piece:
    return _fault(s, part, draw, "XID 79: GPU has fallen off the bus", "frozen")


@scenario("ecc_dbe", "an uncorrectable memory error", "gpu_fault", ("communication_stall",), "ecc")
def _dbe(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = _fault(s, part, draw, "XID 48: double bit ECC error", "")
    return replace(made, feeds=(*made.feeds, Feed("ecc_dbe", made.start, where=made.roots, value=1.0)))


@scenario("xid74", "NVLink error", "gpu_fault", ("interconnect_degraded", "communication_stall"), "nvlink")
def _xid74(s: Scenario, part: Part, draw: Draw) -> Piece:
    return _fault(s, part, draw, "XID 74: NVLink error", "")


@scenario(
    "vanished_silent",
    "a board's series end without a word",
    "gpu_fault",
    ("telemetry_gap", "communication_stall"),
    "lost",
)
def _silent(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = _fault(s, part, draw, "XID 79: x", "gone")
    return replace(made, told=(), feeds=tuple(f for f in made.feeds if f.what != "xid"))


@scenario("xid_after_cancel", "43 and 45 after scancel", like=("gpu_fault",))
def _cancel(s: Scenario, part: Part, draw: Draw) -> Piece:
    at = _at(draw)
    made = _train(s, part, draw, ends_at=at)
    return replace(
        made,
        job_ended=at,
        told=tuple(Told(at + 0.5, "xid", g, "XID 45: preemptive channel removal") for g in range(3)),
    )


@scenario("row_remap", "a row remap is recorded, alone", like=("gpu_fault",))
def _remap(s: Scenario, part: Part, draw: Draw) -> Piece:
    at = _at(draw)
    return replace(_train(s, part, draw), told=(Told(at, "xid", 3, "XID 63: row remapping recorded"),))


@scenario("sticky_xid", "the gauge of an XID of last week", like=("gpu_fault",))
def _sticky(s: Scenario, part: Part, draw: Draw) -> Piece:
    return replace(_train(s, part, draw), feeds=(Feed("xid", -1e6, where=(5,), value=79.0),))


@scenario("counter_reset", "the driver was loaded anew", like=("gpu_fault", "telemetry_gap"), nodes=1)
def _reset(s: Scenario, part: Part, draw: Draw) -> Piece:
    at = _at(draw)
    return Piece(
        s,
        part,
        1,
        told=(Told(at, "driver", None, "driver 570.86.15 -> 580.95.05"),),
        feeds=(Feed("ecc_reset", at), Feed("node_gone", at, at + 25)),
    )


@scenario("node_gap", "a node's exporters fall silent", "telemetry_gap", ("gpu_fault",), "node", nodes=2)
def _gap(s: Scenario, part: Part, draw: Draw) -> Piece:
    at = _at(draw)
    return replace(_train(s, part, draw), root_nodes=(0,), start=at, evident_after=15, loss=0.0,
                   feeds=(Feed("node_gone", at, at + float(draw.uniform(240, 420)), where=tuple(range(8))),))  # fmt: skip


@scenario(
    "constant_idle", "an idle board whose values never change", like=("gpu_fault", "telemetry_gap"), nodes=1
)
def _constant(s: Scenario, part: Part, draw: Draw) -> Piece:
    return Piece(s, part, 1, feeds=(Feed("frozen", 60.0),))
