"""What AMD's exporter, nvidia_gpu_exporter, all-smi, ipmi_exporter and their like mean by their names."""

from __future__ import annotations

import json
import re

import pytest
from lab.pages import amd_labels, amd_page, dcgm_page, ipmi_page, line
from lab.vocabulary import cells, gpu, of, reasons, samples, translations

from coldaisle.sources.catalog import catalog
from coldaisle.sources.source import GpuRef, Kind, Missing, NodeRef
from coldaisle.sources.vocabularies import Vocabulary, counters_for, is_part, shipped

MIB = 1048576


def vocabulary(name: str) -> Vocabulary:
    return next(one for one in shipped() if one.name == name)


def amd(values: dict[str, object], **labels: str) -> bytes:
    rows = (line(name, amd_labels("a01", 0) | labels, value) for name, value in values.items())
    return ("gpu_nodes_total 1\n" + "".join(rows)).encode()


# ---- AMD


@pytest.mark.parametrize(
    ("name", "value", "key", "meant"),
    [
        ("gpu_gfx_activity", 97, "gpu.util", 0.97),
        ("gpu_umc_activity", 40, "gpu.mem_util", 0.4),
        ("gpu_package_power", 748, "gpu.power", 748),
        ("gpu_power_usage", 41, "gpu.power", 41),
        ("gpu_average_package_power", 41, "gpu.power", 41),
        ("gpu_junction_temperature", 71, "gpu.temp", 71),
        ("gpu_edge_temperature", 55, "gpu.temp", 55),
        ("gpu_memory_temperature", 66, "gpu.mem_temp", 66),
        ("gpu_used_vram", 183265, "gpu.mem_used", 183265 * MIB),
        ("gpu_total_vram", 196592, "gpu.mem_total", 196592 * MIB),
        ("pcie_bandwidth", 8000, "gpu.pcie_bandwidth", 1e9),  # Mbit/s
        ("gpu_violation_ppt_residency_percentage", 12, "gpu.power_violation", 0.12),
        ("gpu_violation_hbm_thermal_residency_percentage", 30, "gpu.thermal_violation", 0.3),
        ("gpu_ecc_uncorrect_total", 2, "gpu.ecc_dbe", 2),
        ("gpu_prof_sm_active", 81, "gpu.sm_active", 0.81),
        ("gpu_prof_tensor_active_percent", 33, "gpu.tensor_active", 0.33),
        ("gpu_health", 0, "gpu.health", 0),
    ],
)
def test_amd_names_and_units(name: str, value: float, key: str, meant: float) -> None:
    assert gpu(cells(amd({name: value})))[key] == pytest.approx(meant)
    assert gpu(cells(amd({f"amd_{name}": value})))[key] == pytest.approx(meant), "with a site's prefix"


@pytest.mark.parametrize(
    ("name", "rise", "key", "per_second"),
    [
        ("gpu_energy_consumed", 7.5e9, "gpu.energy", 750),  # uJ in 10 s
        ("gpu_xgmi_link_tx", 1e6, "gpu.xgmi_tx", 102_400_000),  # KB in 10 s
        ("pcie_replay_count", 20, "gpu.pcie_replay", 2),
    ],
)
def test_amd_counters(name: str, rise: float, key: str, per_second: float) -> None:
    before, after = amd({name: "3e15"}), amd({name: f"{3e15 + rise:.0f}"})
    assert gpu(cells(after, before=before))[key] == pytest.approx(per_second)


def test_amd_cells_look_like_any_others() -> None:
    found = gpu(cells(amd({"gpu_gfx_activity": 97, "gpu_used_vram": 98296, "gpu_total_vram": 196592})))
    assert found["gpu.mem_ratio"] == 0.5
    assert "gpu.sm_active" not in found, "graphics activity is not SM activity"
    why = {key: reason for (_, key), reason in reasons(amd({"gpu_gfx_activity": 97})).items()}
    assert why["gpu.sm_active"] is Missing.NOT_EXPORTED


def test_amd_residency_counters_stand_for_percentages() -> None:
    tick = "gpu_violation_current_accumulated_counter"
    power, heat = (f"gpu_violation_{what}_residency_accumulated" for what in ("ppt", "vr_thermal"))
    before = amd({tick: 1000, power: 10, heat: 0})
    after = amd({tick: 2000, power: 260, heat: 500})
    found = gpu(cells(after, before=before))
    assert (found["gpu.power_violation"], found["gpu.thermal_violation"]) == (0.25, 0.5)


@pytest.mark.parametrize("upper", [False, True])
def test_amd_labels_of_old_and_new_releases(upper: bool) -> None:
    (made,) = translations(amd_page("a01", upper=upper))
    assert (made.node, made.driver, made.vocabulary.name) == ("a01", "6.14.14", "AMD device-metrics-exporter")
    assert [board.model for board in made.boards] == ["AMD Instinct MI300X"] * 8
    assert [board.gpu.index for board in made.boards] == list(range(8))
    found = gpu(cells(amd_page("a01", upper=upper)), 3)
    assert found["gpu.sm_clock"] == 2096.5, "the mean of eight dies"
    assert found["gpu.mem_clock"] == 1300


def test_amd_jobs_have_users_and_pods_namespaces() -> None:
    (made,) = translations(amd({"gpu_gfx_activity": 1}, job_id="4711", job_user="kim", job_partition="mi300"))
    assert [(job.id, job.user, job.partition) for job in made.jobs] == [("slurm:4711", "kim", "mi300")]
    (made,) = translations(amd({"gpu_gfx_activity": 1}, pod="train-0", namespace="ml"))
    assert [job.id for job in made.jobs] == ["k8s:ml/Pod/train-0"]


def test_amd_partitions_without_sensors_report_nothing_not_0() -> None:
    body = b"".join(
        line(
            name,
            {**amd_labels("a01", at), "gpu_partition_id": str(at), "gpu_compute_partition_type": "cpx"},
            value,
        ).encode()
        for at in range(8)
        for name, value in (("gpu_package_power", 0 if at else 500), ("gpu_used_vram", 1000 + at))
    )
    found = cells(body)
    assert gpu(found, 0)["gpu.power"] == 500
    assert gpu(found, 7) == {"gpu.mem_used": 1007 * MIB}


def test_what_radeons_always_call_0_is_not_believed() -> None:
    found = gpu(
        cells(amd({"gpu_prof_sm_active": 0, "gpu_gfx_activity": 50}, card_series="AMD Radeon PRO W7900"))
    )
    assert found == {"gpu.util": 0.5}


def test_the_fields_that_make_amds_exporter_export_more() -> None:
    words = vocabulary("AMD device-metrics-exporter")
    (made,) = translations(amd({"gpu_gfx_activity": 97}))
    assert "gpu.power" in made.missing
    lines = counters_for(made.missing, words)
    assert "GPU_PACKAGE_POWER" in lines
    assert "GPU_XGMI_LINK_TX" in lines
    assert words.counters == "GPUConfig.Fields of the exporter's config.json"
    for rule in words.metric:
        assert not rule.field or any(name == rule.field.partition(" ")[0].lower() for name in rule.names), (
            rule
        )


def test_every_amd_field_named_here_is_one_of_its_own() -> None:
    config = json.loads((samples("amd") / "example-config.json").read_text(encoding="utf-8"))
    listed = set(config["GPUConfig"]["Fields"]) | set(
        re.findall(r"\b(?:GPU|PCIE)_\w+", (samples("amd") / "metricslist.md").read_text(encoding="utf-8"))
    )
    words = vocabulary("AMD device-metrics-exporter")
    bare = {name.removeprefix("amd_").upper() for rule in words.metric for name in rule.names}
    assert bare - listed == {"GPU_USAGE", "GPU_TOTAL_MEMORY"}, "these two are of the first releases"
    assert config["CommonConfig"]["MetricsFieldPrefix"] in words.prefixes


def test_the_real_amd_page() -> None:
    body = (samples("amd") / "metrics_mini.txt").read_bytes()
    found = gpu(cells(body, "mi210"))
    assert found == {"gpu.power": 41, "gpu.mem_total": 68702 * MIB, "gpu.util": 0.0}
    (made,) = translations(body, "mi210")
    assert made.boards[0].gpu == GpuRef("mi210", uuid="6699c0a8-4200-4242-037f-f97e6cae0f09")
    assert made.boards[0].serial == "692247001282"


# ---- nvidia_gpu_exporter


def test_the_real_nvidia_gpu_exporter_pages() -> None:
    pages = {
        path.name.split("__")[1]: path.read_bytes() for path in samples("nvidia_gpu_exporter").glob("*.prom")
    }
    assert len(pages) == 3
    for body in pages.values():
        (made,) = translations(body, "n01")
        assert made.vocabulary.name == "nvidia_gpu_exporter"
        assert not made.missing
        (board,) = made.boards
        assert board.gpu.uuid == "GPU-00000000-0000-0000-0000-000000000000", "as NVML and DCGM write it"
        assert board.gpu.pci is not None
        for (_, key), value in cells(body, "n01", before=body).items():
            assert catalog()[key].low <= value <= catalog()[key].high
    found = gpu(cells(pages["nvidia-h100-80gb-hbm3"], before=pages["nvidia-h100-80gb-hbm3"]))
    wanted = {
        "gpu.util": 1.0, "gpu.mem_util": 0.11, "gpu.power": 631.95, "gpu.power_limit": 700, "gpu.power_ratio": 631.95 / 700,
        "gpu.temp": 59, "gpu.mem_temp": 54, "gpu.temp_margin": 26, "gpu.sm_clock": 1980, "gpu.mem_clock": 2619,
        "gpu.mem_used": 2.0780679168e10, "gpu.mem_total": 8.5520809984e10, "gpu.processes": 3, "gpu.pcie_width": 16,
        "gpu.thermal_violation": 0, "gpu.throttle": 0, "gpu.fabric_state": 3, "gpu.ecc_dbe": 0,
    }  # fmt: skip
    assert {key: found[key] for key in wanted} == pytest.approx(wanted)
    split = gpu(cells(pages["nvidia-h100-mig"]))
    assert "gpu.util" not in split, "a board that is split has no utilisation"
    assert split["gpu.mig_mode"] == 1


def test_old_names_of_nvidia_gpu_exporter() -> None:
    body = (
        b'nvidia_smi_gpu_info{uuid="a",index="0"} 1\nnvidia_smi_clocks_throttle_reasons_active{uuid="a"} 64\n'
    )
    assert gpu(cells(body))["gpu.throttle"] == 64


# ---- all-smi

ALL_SMI = b"""\
all_smi_gpu_utilization{gpu="NVIDIA H200 141GB HBM3", instance="node-0058", uuid="GPU-12345", index="0"} 25.5
all_smi_gpu_memory_used_bytes{gpu="NVIDIA H200 141GB HBM3", instance="node-0058", uuid="GPU-12345", index="0"} 75000000000
all_smi_gpu_memory_total_bytes{gpu="NVIDIA H200 141GB HBM3", instance="node-0058", uuid="GPU-12345", index="0"} 150000000000
all_smi_gpu_power_consumption_watts{gpu="NVIDIA H200 141GB HBM3", instance="node-0058", uuid="GPU-12345", index="0"} 350
all_smi_gpu_power_limit_current_watts{gpu="NVIDIA H200 141GB HBM3", instance="node-0058", gpu_uuid="GPU-12345", gpu_index="0"} 700
all_smi_gpu_sm_occupancy{gpu="NVIDIA H200 141GB HBM3", instance="node-0058", gpu_uuid="GPU-12345", gpu_index="0"} 0.42
all_smi_gpu_memory_bandwidth_utilization{gpu_name="NVIDIA H200 141GB HBM3", gpu_index="0"} 0.3
all_smi_cpu_utilization{cpu_model="", instance="node-0058", hostname="node-0058", index="0"} 20
all_smi_chassis_inlet_temperature_celsius{hostname="node-0058", instance="node-0058"} 23.5
"""


def test_all_smi_labels_of_the_manual_and_of_the_releases_are_one_gpu() -> None:
    (made,) = translations(ALL_SMI)
    assert [(board.gpu.uuid, board.model) for board in made.boards] == [
        ("GPU-12345", "NVIDIA H200 141GB HBM3")
    ]
    assert made.node == "node-0058"
    found = cells(ALL_SMI)
    assert gpu(found) == {
        "gpu.util": 0.255, "gpu.mem_used": 75e9, "gpu.mem_total": 150e9, "gpu.mem_ratio": 0.5, "gpu.power": 350,
        "gpu.power_limit": 700, "gpu.power_ratio": 0.5, "gpu.sm_occupancy": 0.42, "gpu.dram_active": 0.3,
    }  # fmt: skip
    assert of(found, Kind.NODE) == {"node.cpu_util": 0.2, "node.inlet_temp": 23.5}


def test_all_smi_mig_instances_are_children() -> None:
    whole = 'gpu="H100", instance="n1", gpu_uuid="GPU-1", gpu_index="0"'
    body = f"""\
all_smi_gpu_mig_mode{{{whole}}} 1
all_smi_mig_instance_utilization_gpu{{{whole}, gpu_instance_id="2", mig_instance="0", mig_profile="3g.40gb"}} 60
all_smi_mig_instance_utilization_gpu{{{whole}, gpu_instance_id="", mig_instance="1", mig_profile="1g.10gb"}} 10
""".encode()
    found = cells(body)
    by_instance = {
        ref.mig: value for (ref, key), value in found.items() if key == "gpu.util" and isinstance(ref, GpuRef)
    }
    assert by_instance == {"gi2": 0.6, "gi1": 0.1}


def test_the_real_all_smi_page() -> None:
    body = (samples("all-smi") / "metrics.prom").read_bytes()
    (made,) = translations(body)
    assert (made.node, made.boards, made.vocabulary.name) == ("a8416cc9eadf", (), "all-smi")
    node = of(cells(body), Kind.NODE)
    assert node["node.cpu_util"] == pytest.approx(0.00372031667)
    assert (node["node.cpus"], node["node.mem_total"]) == (3, 4294967296)


def test_every_all_smi_name_is_in_its_manual() -> None:
    manual = (samples("all-smi") / "API.md").read_text(encoding="utf-8")
    names = {name for rule in vocabulary("all-smi").metric for name in rule.names}
    assert {name for name in names if name not in manual} == set()


# ---- ipmi_exporter


def test_ipmi_measures_the_whole_node() -> None:
    found = of(cells(ipmi_page(), "n01"), Kind.NODE)
    assert found == {
        "node.power": 6400, "node.inlet_temp": 24, "node.outlet_temp": 41, "node.temp_max": 63, "node.fan_rpm": 9480,
        "node.psu_in": 6500, "node.psu_out": 3150, "node.ipmi_state": 1, "node.chassis_on": 1, "node.sel_entries": 17,
    }  # fmt: skip


@pytest.mark.parametrize(
    "name", ["Inlet Temp", "01-Inlet Ambient", "Ambient Temp", "Front Panel Temp", "SYS_INLET", "inlet_temp"]
)
def test_vendors_names_of_the_inlet(name: str) -> None:
    assert of(cells(ipmi_page(inlet_name=name)), Kind.NODE)["node.inlet_temp"] == 24


def test_a_sensor_without_a_reading_is_no_value() -> None:
    body = ipmi_page(power="NaN", inlet="NaN")
    assert {"node.power", "node.inlet_temp"}.isdisjoint(of(cells(body), Kind.NODE))
    why = {key: reason for (_, key), reason in reasons(body).items()}
    assert why["node.power"] is Missing.BLANK


@pytest.mark.parametrize("name", ["Pwr Consumption", "Power Meter", "Sys Power", "Total Power"])
def test_without_dcmi_a_sensor_tells_the_power(name: str) -> None:
    body = f'ipmi_up{{collector="ipmi"}} 1\nipmi_power_watts{{id="90",name="{name}"}} 770\n'.encode()
    assert of(cells(body), Kind.NODE)["node.power"] == 770


def test_the_lines_of_the_ipmi_manual() -> None:
    manual = (samples("ipmi") / "ipmi_exporter-metrics.md").read_text(encoding="utf-8")
    lines = [text.strip() for text in manual.splitlines() if re.match(r"    ipmi_\w+\{.*\} \S+$", text)]
    found = of(
        cells(("\n".join(lines) + "\nipmi_dcmi_power_consumption_current_watts 512\n").encode()), Kind.NODE
    )
    assert found["node.power"] == 512
    assert (found["node.inlet_temp"], found["node.fan_rpm"], found["node.ipmi_state"]) == (24, 4560, 0)


def test_a_target_that_a_scrape_has_added_names_the_node() -> None:
    body = ipmi_page().replace(b"watts 6400", b'watts{target="n07"} 6400')
    assert cells(body, "ipmi1")[NodeRef("n07"), "node.power"] == 6400


# ---- others


def test_omnistat_and_jobstats() -> None:
    omnistat = b"""\
rocm_num_gpus 1
rocm_version_info{card="0",driver_ver="6.3",type="MI300X",serial="s1"} 1
rocm_utilization_percentage{card="0"} 90
rocm_vram_used_percentage{card="0"} 25
rocm_average_socket_power_watts{card="0"} 600
rocm_temperature_celsius{card="0",location="hotspot"} 70
"""
    assert gpu(cells(omnistat)) == {
        "gpu.util": 0.9, "gpu.mem_ratio": 0.25, "gpu.power": 600, "gpu.temp": 70,
    }  # fmt: skip
    labels = 'minor_number="1",name="NVIDIA A100",ordinal="1",uuid="GPU-1"'
    jobstats = f"nvidia_gpu_duty_cycle{{{labels}}} 80\nnvidia_gpu_power_usage_milliwatts{{{labels}}} 250000\n"
    assert gpu(cells(jobstats.encode())) == {"gpu.util": 0.8, "gpu.power": 250}


def test_an_agents_page_speaks_several_vocabularies() -> None:
    """As grafana-alloy or vmagent merge the pages of a node."""
    body = dcgm_page("n01", 2) + ipmi_page() + b'node_uname_info{nodename="n01"} 1\nnode_load1 3\n'
    made = translations(body, "10.0.0.7")
    assert [one.vocabulary.name for one in made] == ["dcgm-exporter", "ipmi_exporter", "node_exporter"]
    assert {one.node for one in made} == {"n01"}, "what one of them knows, all of them believe"
    found = cells(body, "10.0.0.7")
    assert found[NodeRef("n01"), "node.power"] == 6400
    assert found[NodeRef("n01"), "node.load1"] == 3
    assert len({ref for ref, _ in found if isinstance(ref, GpuRef)}) == 2


def test_labels_of_one_vocabulary_are_not_read_as_anothers() -> None:
    """all-smi's ``gpu`` is a model's name, dcgm-exporter's a number; all-smi's ``index`` also counts CPUs."""
    made = {one.vocabulary.name: one for one in translations(ALL_SMI + dcgm_page("node-0058", 1))}
    assert [board.gpu.index for board in made["dcgm-exporter"].boards] == [0]
    assert [board.model for board in made["all-smi"].boards] == ["NVIDIA H200 141GB HBM3"]


@pytest.mark.parametrize("one", shipped(), ids=lambda one: one.name)
def test_no_vocabulary_is_taken_for_another(one: Vocabulary) -> None:
    exact = {probe for probe in one.probe if not probe.endswith("*")}
    names = exact | {rule_name for rule in one.metric for rule_name in rule.names if not is_part(rule.key)}
    assert [other.name for other in shipped() if other is not one and other.is_spoken_on(names)] == []
