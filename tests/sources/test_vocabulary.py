"""Vocabularies: the shipped ones are whole, mistakes in a site's own are told, pages become metrics."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
from lab.pages import dcgm_page, gpu_labels, line, one_gpu

from coldaisle.sources.catalog import catalog
from coldaisle.sources.errors import ConfigError
from coldaisle.sources.exposition import Page, parse
from coldaisle.sources.source import DiskRef, GpuRef, Kind, Missing, NodeRef, PortRef
from coldaisle.sources.translation import Translation, rates_between, translate
from coldaisle.sources.vocabularies import (
    Vocabulary,
    counters_for,
    is_part,
    load_vocabulary,
    parse_vocabulary,
    recognise,
    shipped,
)


def vocabulary(name: str) -> Vocabulary:
    return next(one for one in shipped() if one.name == name)


def read(body: bytes, host: str = "host") -> tuple[Page, Translation]:
    page = parse(body)
    words = recognise(page.shape.names, shipped())
    assert words is not None
    return page, translate(page.shape, words, host)


def values_of(
    body: bytes, kind: Kind = Kind.GPU, row: int = 0, *, before: bytes | None = None, seconds: float = 10.0
) -> dict[str, float]:
    """One entity's values, NaN left out."""
    return {
        key: value
        for key, value in everything(body, kind, row, before=before, seconds=seconds).items()
        if value == value
    }


def everything(
    body: bytes, kind: Kind = Kind.GPU, row: int = 0, *, before: bytes | None = None, seconds: float = 10.0
) -> dict[str, float]:
    page, made = read(body)
    earlier = parse(before).values if before else np.full(len(page.values), np.nan)
    table = made.tables[kind]
    values, _ = made.evaluate(page.values, rates_between(earlier, page.values, seconds))[kind]
    return dict(zip(table.shown_metrics, values[row].tolist(), strict=True))


def reasons_of(body: bytes, row: int = 0) -> dict[str, Missing]:
    page, made = read(body)
    table = made.tables[Kind.GPU]
    _, reasons = made.evaluate(page.values, np.full(len(page.values), np.nan))[Kind.GPU]
    return {key: Missing(int(code)) for key, code in zip(table.shown_metrics, reasons[row], strict=True)}


def test_shipped_vocabularies_speak_of_the_catalog() -> None:
    for one in shipped():
        for rule in one.metric:
            assert is_part(rule.key) or rule.key in catalog()
            if rule.type == "rate" and not is_part(rule.key):
                metric = catalog()[rule.key]
                units = ("s",) if rule.fold == "quantile" else ("/s", "B/s", "tokens/s", "ratio", "W", "1")
                assert metric.unit in units, rule.key


GENERATIONS = [
    ("gpu.util", {"DCGM_FI_DEV_GPU_UTIL": 50}, {"DCGM_FI_DEV_GPU_UTIL_RATIO": 50}, 0.5),
    ("gpu.temp", {"DCGM_FI_DEV_GPU_TEMP": 61}, {"DCGM_FI_DEV_GPU_TEMP_CELSIUS": 61}, 61),
    ("gpu.power", {"DCGM_FI_DEV_POWER_USAGE": 113.611}, {"DCGM_FI_DEV_BOARD_POWER_WATTS": 113.611}, 113.611),
    ("gpu.sm_active", {"DCGM_FI_PROF_SM_ACTIVE": 0.7}, {"DCGM_FI_PROF_SM_UTIL_RATIO": 0.7}, 0.7),
    (
        "gpu.tensor_active",
        {"DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": 0.3},
        {"DCGM_FI_PROF_TENSOR_UTIL_RATIO": 0.3},
        0.3,
    ),
    ("gpu.xid_last", {"DCGM_FI_DEV_XID_ERRORS": 79}, {"DCGM_FI_DEV_XID_ERROR": 79}, 79),
    ("gpu.mem_ratio", {"DCGM_FI_DEV_FB_USED_PERCENT": 0.25}, {"DCGM_FI_DEV_FB_USED_RATIO": 0.25}, 0.25),
    ("gpu.sm_clock", {"DCGM_FI_DEV_SM_CLOCK": 1980}, {"DCGM_FI_DEV_SM_CLOCK_HERTZ": 1.98e9}, 1980),
    (
        "gpu.nvlink_bandwidth",
        {"DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL": 1000},
        {"DCGM_FI_DEV_NVLINK_THROUGHPUT_TOTAL": 1000},
        1.024e9,
    ),
    ("gpu.pcie_tx", {"DCGM_FI_PROF_PCIE_TX_BYTES": 5e9}, {"DCGM_FI_PROF_PCIE_TX_BYTES": 5e9}, 5e9),
    ("gpu.mem_used", {"DCGM_FI_DEV_FB_USED": 2}, {"DCGM_FI_DEV_FB_USED": 2}, 2097152),
]


@pytest.mark.parametrize(("key", "old", "new", "value"), GENERATIONS)
def test_old_and_new_names_give_the_same_metric(
    key: str, old: dict[str, object], new: dict[str, object], value: float
) -> None:
    assert values_of(one_gpu(old))[key] == pytest.approx(value)
    assert values_of(one_gpu(new))[key] == pytest.approx(value)


@pytest.mark.parametrize(
    ("key", "name", "rise", "per_second"),
    [
        ("gpu.energy", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 5_000_000, 500.0),  # mJ in 10 s
        ("gpu.power_violation", "DCGM_FI_DEV_POWER_VIOLATION", 2.5e9, 0.25),  # ns in 10 s
        ("gpu.pcie_rx", "DCGM_FI_PROF_PCIE_RX_BYTES_TOTAL", 1e10, 1e9),
        ("gpu.pcie_replay", "DCGM_FI_DEV_PCIE_REPLAY_COUNTER", 20, 2.0),
    ],
)
def test_counters_become_rates_over_the_true_interval(
    key: str, name: str, rise: float, per_second: float
) -> None:
    # Far above 1.4e14: a counter may be as large as a blank and is none.
    start = 3e14
    before, after = one_gpu({name: f"{start:.0f}"}), one_gpu({name: f"{start + rise:.0f}"})
    assert values_of(after, before=before)[key] == pytest.approx(per_second)
    assert key not in values_of(before, before=after), (
        "a counter that went back is a reset, not a negative rate"
    )
    assert reasons_of(after)[key] is Missing.NOT_SAMPLED


@pytest.mark.parametrize(
    "blank",
    [
        "9223372036854775794",
        "9.223372036854776e+18",
        "9223372036854775792",
        "140737488355328",
        "140737488355330.000000",
        "NaN",
    ],
)
def test_blanks_are_missing_and_say_so(blank: str) -> None:
    body = one_gpu(
        {
            "DCGM_FI_DEV_MEMORY_TEMP": blank,
            "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": blank,
            "DCGM_FI_DEV_GPU_TEMP": 40,
        }
    )
    assert set(values_of(body, before=body)) == {"gpu.temp"}
    assert reasons_of(body)["gpu.mem_temp"] is Missing.BLANK
    assert reasons_of(body)["gpu.energy"] is Missing.BLANK
    assert reasons_of(body)["gpu.sm_active"] is Missing.NOT_EXPORTED


def test_what_the_catalog_calls_impossible_is_a_blank() -> None:
    assert reasons_of(one_gpu({"DCGM_FI_DEV_GPU_TEMP": 5000}))["gpu.temp"] is Missing.BLANK


def test_derived_metrics_stand_where_their_parts_do() -> None:
    body = one_gpu(
        {
            "DCGM_FI_DEV_FB_USED": 20,
            "DCGM_FI_DEV_FB_FREE": 60,
            "DCGM_FI_DEV_POWER_USAGE": 350,
            "DCGM_FI_DEV_ENFORCED_POWER_LIMIT": 700,
        }
    )
    got = values_of(body)
    assert got["gpu.mem_ratio"] == 0.25
    assert got["gpu.power_ratio"] == 0.5
    assert "gpu.mem_total" not in got, "without the reserved part the total is not known"
    assert not any(key.partition(".")[2].startswith("_") for key in got)


@pytest.mark.parametrize(
    "labels",
    [
        {"gpu": "3", "UUID": "GPU-a", "device": "nvidia3", "modelName": "NVIDIA H100", "Hostname": "n07"},
        {
            "gpu": "3",
            "uuid": "GPU-a",
            "pci_bus_id": "00000000:1B:00.0",
            "device": "nvidia3",
            "hostname": "n07",
        },
        {
            "gpu": "3",
            "gpu_uuid": "GPU-a",
            "device": "nvidia3",
            "model_name": "NVIDIA H100",
            "hostname": "n07",
        },
    ],
)
def test_label_generations(labels: dict[str, str]) -> None:
    _, made = read(one_gpu({"DCGM_FI_DEV_GPU_TEMP": 40}, labels))
    (gpu,) = made.tables[Kind.GPU].entities
    assert isinstance(gpu, GpuRef)
    assert (gpu.node, gpu.uuid, gpu.minor, gpu.index) == ("n07", "GPU-a", 3, 3)
    assert gpu.pci == ("0000:1b:00.0" if "pci_bus_id" in labels else None)


def test_nvlink_series_with_other_labels_belong_to_the_same_board() -> None:
    links = b"".join(
        line(
            "DCGM_FI_PROF_NVLINK_TX_BYTES",
            {"nvlink": str(n), "gpu_uuid": gpu_labels("n01", 0)["UUID"], "hostname": "n01"},
            100,
        ).encode()
        for n in range(18)
    )
    body = one_gpu({"DCGM_FI_DEV_GPU_TEMP": 40}) + links
    _, made = read(body)
    assert len(made.tables[Kind.GPU].entities) == 1
    assert values_of(body)["gpu.nvlink_tx"] == 1800


def test_one_gpu_that_two_jobs_share_is_one_gpu_with_two_jobs() -> None:
    labels = gpu_labels("n01", 0)
    body = one_gpu({"DCGM_FI_DEV_GPU_TEMP": 40}, {**labels, "hpc_job": "4711"}) + one_gpu(
        {"DCGM_FI_DEV_GPU_TEMP": 40}, {**labels, "hpc_job": "4712"}
    )
    _, made = read(body)
    assert len(made.tables[Kind.GPU].entities) == 1
    assert [job.id for job in made.jobs] == ["slurm:4711", "slurm:4712"]
    links = b"".join(
        line("DCGM_FI_PROF_NVLINK_RX_BYTES", {**labels, "nvlink": str(n), "hpc_job": job}, 100).encode()
        for n in range(2)
        for job in ("4711", "4712")
    )
    assert values_of(links)["gpu.nvlink_rx"] == 200, "the copies for a second job count once"


@pytest.mark.parametrize("prefix", ["", "exported_"])
def test_pods_are_jobs(prefix: str) -> None:
    labels = {**gpu_labels("n01", 0), f"{prefix}pod": "train-0", f"{prefix}namespace": "ml"}
    _, made = read(one_gpu({"DCGM_FI_DEV_GPU_TEMP": 40}, labels))
    assert [(job.id, job.name) for job in made.jobs] == [("k8s:ml/Pod/train-0", "train-0")]


def test_mig_instances_are_children_and_their_board_has_the_power() -> None:
    rows = b""
    for instance in ("1", "2"):
        labels = {**gpu_labels("n01", 0), "GPU_I_PROFILE": "3g.40gb", "GPU_I_ID": instance}
        rows += one_gpu(
            {"DCGM_FI_DEV_POWER_USAGE": 300, "DCGM_FI_PROF_GR_ENGINE_ACTIVE": 0.1 * int(instance)}, labels
        )
    _, made = read(rows)
    entities = made.tables[Kind.GPU].entities
    places = {gpu.mig: row for row, gpu in enumerate(entities) if isinstance(gpu, GpuRef)}
    assert set(places) == {None, "gi1", "gi2"}
    assert values_of(rows, row=places[None]) == {"gpu.power": 300}
    assert values_of(rows, row=places["gi2"]) == {"gpu.gr_active": pytest.approx(0.2)}
    assert reasons_of(rows, row=places["gi1"])["gpu.power"] is Missing.NOT_SUPPORTED
    assert {board.mig_profile for board in made.boards} == {None, "3g.40gb"}


@pytest.mark.parametrize("name", ["-oProxyCommand=x", "\x1b]52;c;", "a b", "localhost", "x" * 300, ""])
def test_a_host_name_that_is_none_is_not_believed(name: str) -> None:
    labels = {**gpu_labels("n01", 0), "Hostname": name}
    text = one_gpu({"DCGM_FI_DEV_GPU_TEMP": 40}, labels)
    _, made = read(text, host="10.0.0.7")
    assert made.node == "10.0.0.7"


NODE = """\
node_uname_info{nodename="n01",release="5.14.0",machine="x86_64"} 1
node_cpu_seconds_total{cpu="0",mode="idle"} %(idle)s
node_cpu_seconds_total{cpu="0",mode="user"} %(user)s
node_cpu_seconds_total{cpu="0",mode="iowait"} %(iowait)s
node_cpu_seconds_total{cpu="1",mode="idle"} %(idle)s
node_cpu_seconds_total{cpu="1",mode="user"} 0
node_cpu_seconds_total{cpu="1",mode="iowait"} %(iowait)s
node_memory_MemTotal_bytes 1000
node_memory_MemAvailable_bytes 250
node_disk_io_time_seconds_total{device="nvme0n1"} %(user)s
node_disk_io_time_seconds_total{device="nvme0n1p1"} %(idle)s
node_disk_io_time_seconds_total{device="dm-0"} %(idle)s
node_network_up{device="eth0"} 1
node_network_up{device="lo"} 1
node_network_receive_bytes_total{device="eth0"} %(bytes)s
node_network_receive_bytes_total{device="bond0"} %(bytes)s
node_infiniband_port_data_received_bytes_total{device="mlx5_0",port="1"} %(bytes)s
node_infiniband_np_cnp_packets_sent_total{device="mlx5_0",port="1"} %(bytes)s
"""


def test_node_exporter_folds_cpus_disks_and_ports() -> None:
    before = (NODE % {"idle": 0, "user": 0, "iowait": 0, "bytes": 0}).encode()
    after = (NODE % {"idle": 6, "user": 3, "iowait": 1, "bytes": 1e10}).encode()
    node = values_of(after, Kind.NODE, before=before)
    assert node["node.cpu_util"] == pytest.approx(3 / 17)
    assert node["node.cpu_iowait"] == pytest.approx(2 / 17)
    assert node["node.cpu_busiest"] == pytest.approx(0.3)
    assert node["node.cpus"] == 2
    assert node["node.mem_ratio"] == 0.75
    assert node["node.disk_util"] == pytest.approx(0.3)
    assert node["node.net_rx"] == 1e9, "a bond carries what its members count"
    _, made = read(after)
    assert made.tables[Kind.DISK].entities == (DiskRef("n01", "nvme0n1"),)
    assert set(made.tables[Kind.PORT].entities) == {
        PortRef("n01", "mlx5_0/1"),
        PortRef("n01", "eth0"),
        PortRef("n01", "bond0"),
    }
    port = made.tables[Kind.PORT].entities.index(PortRef("n01", "mlx5_0/1"))
    assert values_of(after, Kind.PORT, port, before=before) == {"port.rx": 1e9, "port.cnp_sent": 1e9}
    assert (made.node, made.kernel) == ("n01", "5.14.0")
    assert math.isnan(everything(before, Kind.NODE, before=after)["node.cpu_util"])


def test_the_counters_to_add() -> None:
    wanted = ["gpu.sm_active", "gpu.power_ratio", "node.load1"]
    lines = counters_for(wanted, vocabulary("dcgm-exporter"))
    assert [text.split(",")[0] for text in lines] == [
        "DCGM_FI_PROF_SM_ACTIVE",
        "DCGM_FI_DEV_POWER_USAGE",
        "DCGM_FI_DEV_ENFORCED_POWER_LIMIT",
    ]
    for one in shipped():
        for rule in one.metric:
            assert not rule.csv or re.fullmatch(r"DCGM_\w+, (gauge|counter), [^,]+", rule.csv), rule.csv
            assert not rule.csv or rule.csv.split(",")[0] in rule.names


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = 3", "Expected `str`"),
        ("name = 'x'\nprobe = ['x']", "missing required field `metric`"),
        (
            "name = 'x'\nprobe = ['x']\nmetric = [{key = 'gpu.nope', names = ['a']}]",
            "gpu.nope: the catalog has no such metric",
        ),
        (
            "name = 'x'\nprobe = ['x']\nmetric = [{key = 'tpu.util', names = ['a']}]",
            "no such entity; one of gpu, node",
        ),
        (
            "name = 'x'\nprobe = ['x']\nmetric = [{key = 'gpu.util', names = ['a'], scael = 2}]",
            "unknown field `scael`",
        ),
        (
            "name = 'x'\nprobe = ['x']\nmetric = [{key = 'gpu.util', names = ['a'], select = 's'}]",
            "there is no [select.s]",
        ),
        ("name = 'x'\nprobe = ['x']\nmetric = [{key = 'port.rx', names = ['a']}]", "it needs an entity"),
        (
            "name = 'x'\nprobe = ['x']\nmetric = []\nderived = [{key = 'gpu.util', ratio = ['gpu.a', 'gpu.b']}]",
            "no rule gives gpu.a",
        ),
        ("name = 'x'\nprobe = ['x']\nmetric = []\nselect.s.only = {a = '('}", "not a regular expression"),
        (
            "name = 'x'\nprobe = ['x']\nmetric = [{key = 'serve.running', names = ['a']}]",
            "serve.running: it needs a [server] with the engine's name",
        ),
        (
            "name = 'x'\nprobe = ['x']\nmetric = []\n[server]\nengine = 'E'\nabsent = ['serve.nope']",
            "serve.nope: the catalog has no such metric",
        ),
        (
            "name = 'x'\nprobe = ['x']\nmetric = []\n[server]\nengine = 'E'\nprocesses = ['(']",
            "not a regular expression: (",
        ),
        (
            "name = 'x'\nprobe = ['x']\nmetric = [{key = 'serve.ttft_p99', names = ['a'], fold = 'quantile'}]",
            "the fold quantile needs type",
        ),
        ("name = 'x'\nprobe = ['x']\nmetric = [{key = 'gpu.util', names = ['@a']}]", "names is empty"),
        ("name = ", "not a vocabulary"),
    ],
)
def test_mistakes_in_a_sites_own_vocabulary(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_vocabulary(file)
    assert says in str(caught.value)
    assert str(caught.value).startswith(str(file))


def test_the_manuals_example_is_a_vocabulary() -> None:
    manual = Path(__file__).resolve().parents[2] / "sources" / "README.md"
    section = manual.read_text(encoding="utf-8").partition("## Vocabularies")[2]
    example = section.partition("```toml\n")[2].partition("```")[0]
    own = parse_vocabulary(example, manual)
    page = parse(
        b'ipmi_up{Hostname="n01"} 1\nipmi_dcmi_power_consumption_watts{Hostname="n01"} 950\n'
        b'ipmi_temperature_celsius{Hostname="n01",id="1",name="Inlet Temp"} 24\n'
        b'ipmi_temperature_celsius{Hostname="n01",id="2",name="Exhaust Temp"} 41\n'
    )
    translation = translate(page.shape, own, "10.0.0.1")
    values, _ = translation.evaluate(page.values, page.values)[Kind.NODE]
    table = translation.tables[Kind.NODE]
    assert table.entities == (NodeRef("n01"),)
    assert dict(zip(table.shown_metrics, values[0].tolist(), strict=True)) == {
        "node.power": 950,
        "node.inlet_temp": 24,
    }


def test_a_sites_own_vocabulary_reads_its_exporter() -> None:
    own = parse_vocabulary(
        "name = 'jobstats'\nprobe = ['nvidia_gpu_duty_cycle']\n"
        "metric = [{key = 'gpu.util', names = ['nvidia_gpu_duty_cycle'], scale = 0.01}]\n"
        "[labels]\nuuid = ['uuid']\nindex = ['minor_number']\n",
        Path("own.toml"),
    )
    page = parse(b'nvidia_gpu_duty_cycle{minor_number="0",uuid="GPU-x"} 30\n')
    assert recognise(page.shape.names, (own, *shipped())) is own
    made = translate(page.shape, own, "n01")
    values, _ = made.evaluate(page.values, page.values)[Kind.GPU]
    assert values[0, 0] == pytest.approx(0.3)


def samples(folder: str) -> Path:
    root = os.environ.get("COLDAISLE_SAMPLES")
    if not root:
        pytest.skip("COLDAISLE_SAMPLES is not set")
    return Path(root) / "prom" / folder


def test_real_dcgm_pages() -> None:
    (page,) = samples("dcgm").glob("*t4*.prom")
    _, made = read(page.read_bytes() + b"\n")
    assert made.vocabulary.name == "dcgm-exporter"
    assert made.node == "424773df46e0"
    got = values_of(page.read_bytes() + b"\n")
    assert got["gpu.sm_clock"] == 300
    assert got["gpu.power"] == pytest.approx(8.969)
    assert got["gpu.mem_free"] == 15109 * 1048576


def test_real_lines_of_an_eight_h100_node() -> None:
    text = (samples("dcgm") / "aicr-accelerator-metrics-2026-03.md").read_text(encoding="utf-8")
    lines = [one for one in text.splitlines() if re.match(r"DCGM_\w+\{", one)]
    body = ("\n".join(lines) + "\n").encode()
    _, made = read(body)
    gpus = made.tables[Kind.GPU].entities
    assert len(gpus) == 8
    assert made.node == "gpu-node-1"
    assert values_of(body)["gpu.temp"] == 30
    assert values_of(body)["gpu.power"] == pytest.approx(113.611)
    assert isinstance(gpus[0], GpuRef)
    assert gpus[0].pci == "0000:53:00.0"
    assert [job.id for job in made.jobs] == ["k8s:dynamo-workload/Pod/vllm-agg-0-vllmdecodeworker-s65j5"]


def test_every_field_of_the_shipped_counter_files_is_known() -> None:
    names = {
        found[1]
        for path in samples("dcgm").glob("d*.csv")
        for text in path.read_text(encoding="utf-8").splitlines()
        if (found := re.match(r"#? ?(DCGM_FI_(?:DEV|PROF)_\w+) *, *(?:gauge|counter)", text))
    }
    unread = names - vocabulary("dcgm-exporter").wanted()
    assert len(names) > 40
    assert unread <= {"DCGM_FI_DEV_VGPU_LICENSE_STATUS", "DCGM_FI_DEV_NVLINK_BANDWIDTH_L0"} | {
        n for n in unread if "VGPU" in n
    }


def test_the_names_of_the_first_generation_are_known() -> None:
    (path,) = samples("dcgm").glob("1.x*.csv")
    text = path.read_text(encoding="utf-8")
    names = {found[1] for found in re.finditer(r"^#? ?(dcgm_\w+) *, *(?:gauge|counter)", text, re.MULTILINE)}
    assert len(names) > 30
    assert names <= vocabulary("dcgm-exporter").wanted()


def test_a_page_of_the_first_generation() -> None:
    labels = 'gpu="0",uuid="GPU-20c56d28-0da5-6d26-a36a-e7af1ce2586e",device="nvidia0"'
    told = {
        "dcgm_gpu_utilization": 96,
        "dcgm_fi_prof_sm_active": 0.8,
        "dcgm_fb_used": 1024,
        "dcgm_xid_errors": 79,
    }
    body = "".join(f"{name}{{{labels}}} {value}\n" for name, value in told.items()).encode()
    values = values_of(body)
    assert values["gpu.util"] == pytest.approx(0.96)
    assert values["gpu.sm_active"] == pytest.approx(0.8)
    assert values["gpu.mem_used"] == 1 << 30
    assert values["gpu.xid_last"] == 79


def test_the_real_node_exporter_page() -> None:
    body = (samples("node_exporter") / "e2e-output.txt").read_bytes()
    node = values_of(body, Kind.NODE, before=body)
    assert node["node.load1"] == 0.21
    assert node["node.cpus"] == 8
    _, made = read(body)
    assert made.vocabulary.name == "node_exporter"
    assert PortRef("host", "mlx4_0/1") in made.tables[Kind.PORT].entities
    assert made.tables[Kind.NODE].entities == (NodeRef("host"),)


def test_a_whole_generated_page() -> None:
    page, made = read(dcgm_page())
    values, reasons = made.evaluate(page.values, np.zeros(len(page.values)))[Kind.GPU]
    assert values.shape[0] == 8
    given = reasons == Missing.PRESENT
    assert not np.isnan(values[given]).any()
    assert np.isnan(values[~given]).all()
