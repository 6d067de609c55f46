"""Work that nothing hinders, of many kinds; each looks like some condition."""

from __future__ import annotations

from dataclasses import replace

from coldaisle.sources.simulator.plan import Part
from coldaisle.sources.simulator.scenarios.episodes.registry import Draw, heavy, scenario, train
from coldaisle.sources.simulator.scenarios.labels import Scenario
from coldaisle.sources.simulator.scenarios.pieces import SLOTS, Cause, Host, Piece


@scenario("healthy_training", "a training job that nothing hinders", like=("thermal_throttling", "straggler", "data_loader_starvation"))  # fmt: skip
def _healthy(s: Scenario, part: Part, draw: Draw) -> Piece:
    return train(s, part, draw)


@scenario("healthy_fsdp", "sharded parameters: gathers and scatters all the time", like=("interconnect_saturation", "communication_stall"), nodes=4)  # fmt: skip
def _fsdp(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = train(s, part, draw, "llm-pretrain", 4)
    assert made.program is not None
    busy = {
        "fabric": 0.45 * part.port * made.program["compute"],
        "nvlink": 0.35 * part.nvlink * made.program["compute"],
    }
    return replace(made, program=made.program | busy | {"overlap": 0.93})


@scenario("tp_pp", "tensor and pipeline parallel: stages differ, all is well", like=("straggler", "communication_stall"))  # fmt: skip
def _tp_pp(s: Scenario, part: Part, draw: Draw) -> Piece:
    lighter = float(draw.uniform(0.8, 0.95))
    stage = tuple(1.0 if g < SLOTS else lighter for g in range(2 * SLOTS))
    activity = tuple(1.0 if g < SLOTS else 1.12 for g in range(2 * SLOTS))
    return replace(train(s, part, draw, "tp-pp-llm", 2), role=stage, role_sm=activity, rails=(0, 1))


@scenario("moe", "experts are never loaded alike", like=("straggler", "communication_stall"))
def _moe(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = train(s, part, draw, "train-moe")
    return replace(made, role=tuple(draw.uniform(0.92, 1.0, s.nodes * SLOTS).tolist()))


@scenario("grad_accumulation", "long compute, rare exchange, at the power cap", like=("data_loader_starvation", "power_capping"))  # fmt: skip
def _accumulation(s: Scenario, part: Part, draw: Draw) -> Piece:
    return heavy(s, part, draw, compute=float(draw.uniform(5, 7)), sm=0.97, tensor=0.64, dram=0.35)


@scenario("lora", "a small job on one board of a node", like=("straggler", "idle_allocation"), nodes=1)
def _lora(s: Scenario, part: Part, draw: Draw) -> Piece:
    held = tuple(range(int(draw.choice((1, 2)))))
    made = train(
        s, part, draw, "lora", rest_every=float(draw.uniform(90, 240)), rest_for=float(draw.uniform(3, 8))
    )
    return replace(made, job_gpus=held, name="lora", memory=0.45)


@scenario("gnn", "sampling on the CPU, small kernels: low, and as it is", like=("data_loader_starvation", "straggler"), nodes=1)  # fmt: skip
def _gnn(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = train(s, part, draw, "gnn")
    return replace(made, host=Host(cpu=0.3, read=3e7))


@scenario("eval_pause", "an evaluation on the CPU now and then", like=("data_loader_starvation", "checkpoint_stall", "communication_stall"))  # fmt: skip
def _eval(s: Scenario, part: Part, draw: Draw) -> Piece:
    return train(
        s, part, draw, "sft", rest_every=float(draw.uniform(240, 480)), rest_for=float(draw.uniform(8, 18))
    )


@scenario("eval_alone", "rank 0 evaluates, all others wait in a barrier for some seconds", like=("communication_stall", "straggler", "checkpoint_stall"))  # fmt: skip
def _alone(s: Scenario, part: Part, draw: Draw) -> Piece:
    return train(
        s,
        part,
        draw,
        "sft",
        alone=1.0,
        rest_every=float(draw.uniform(300, 480)),
        rest_for=float(draw.uniform(8, 20)),
    )


@scenario("notebook", "a person at a notebook", like=("data_loader_starvation", "idle_allocation"), nodes=1)
def _notebook(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = train(
        s, part, draw, "sft", rest_every=float(draw.uniform(5, 25)), rest_for=float(draw.uniform(15, 70)), comm=0.0, nvlink=0.0
    )  # fmt: skip
    return replace(
        made,
        job_gpus=(0,),
        name="interactive-jupyter",
        workload="interactive",
        memory=0.3,
        job_started=-1800.0,
    )


@scenario("free_nodes", "nobody is here", like=("idle_allocation", "telemetry_gap", "gpu_fault"), nodes=1)
def _free(s: Scenario, part: Part, draw: Draw) -> Piece:
    return Piece(s, part, 1)


@scenario(
    "dense_gemm", "dense GEMMs at the power limit: normal", like=("power_capping", "thermal_throttling")
)
def _gemm(s: Scenario, part: Part, draw: Draw) -> Piece:
    return heavy(s, part, draw, sm=0.97, tensor=float(draw.uniform(0.6, 0.68)), dram=0.3, host=0.01)


@scenario("hot_but_fine", "hot, and below every limit", like=("thermal_throttling",))
def _fine(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = heavy(s, part, draw)
    air = Cause("hottest", float(draw.uniform(3.5, 8.0)), None, 0.0, is_cause=False)
    return replace(made, causes=(Cause("hbm", 0.35, None, 0.0, is_cause=False), air))


@scenario(
    "app_clocks", "clocks locked by the operator", like=("thermal_throttling", "power_capping", "straggler")
)
def _locked(s: Scenario, part: Part, draw: Draw) -> Piece:
    lock = Cause("app_clock", float(draw.uniform(0.65, 0.9)), None, 0.0, is_cause=False)
    return replace(train(s, part, draw), causes=(lock,))


@scenario(
    "power_dips", "a dip every 18 s, without any write", like=("checkpoint_stall", "data_loader_starvation")
)
def _dips(s: Scenario, part: Part, draw: Draw) -> Piece:
    return heavy(
        s, part, draw, rest_every=float(draw.uniform(14, 22)), rest_for=float(draw.uniform(0.8, 2.2))
    )


@scenario("mixed_node", "two strangers on one node: training here, a server there", like=("straggler", "idle_allocation"), nodes=1)  # fmt: skip
def _mixed(s: Scenario, part: Part, draw: Draw) -> Piece:
    from coldaisle.sources.simulator.scenarios.episodes.serving import asked

    made = train(s, part, draw)
    servers = tuple(asked(part, draw, float(draw.uniform(0.15, 0.4))) for _ in range(2))
    return replace(made, job_gpus=(0, 1, 2, 3), services=servers, server_first=4)
