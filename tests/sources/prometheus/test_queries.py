"""Rules as PromQL: one metric a query, folded on the server, blanks kept out of folds and rates."""

from __future__ import annotations

from pathlib import Path

from coldaisle.sources.prometheus.queries import (
    Key,
    Keys,
    Question,
    Wording,
    any_of,
    gpu_key,
    number,
    place_key,
    questions,
    selector,
    template_labels,
)
from coldaisle.sources.vocabularies import Vocabulary, parse_vocabulary, shipped

DCGM = next(one for one in shipped() if one.name == "dcgm-exporter")
NODE = next(one for one in shipped() if one.name == "node_exporter")
LABELS = frozenset(
    {"instance", "job", "UUID", "gpu", "Hostname", "pci_bus_id", "cpu", "mode", "device", "port", "target"}
)


def asked(vocabulary: Vocabulary, *names: str, labels: frozenset[str] = LABELS) -> list[Question]:
    place = place_key(vocabulary.labels, labels)
    gpu = gpu_key(vocabulary.labels, labels, place, has_uuids=True)
    return questions(vocabulary, names, Keys(place, gpu, vocabulary, labels))


def texts(vocabulary: Vocabulary, *names: str, match: tuple[str, ...] = ()) -> dict[str, str]:
    wording = Wording(vocabulary, match)
    return {one.rule.key: wording.ask(one, 60.0) for one in asked(vocabulary, *names)}


def test_a_gauge_is_asked_by_what_tells_boards_apart() -> None:
    assert texts(DCGM, "DCGM_FI_DEV_GPU_UTIL") == {"gpu.util": "max by (UUID) (DCGM_FI_DEV_GPU_UTIL)"}


def test_matchers_of_the_settings_and_of_a_shard_are_in_every_selector() -> None:
    (question,) = asked(DCGM, "DCGM_FI_DEV_GPU_UTIL")
    text = Wording(DCGM, ('cluster="a"',)).ask(question, 60.0, (any_of("instance", ["n1:9400", "n2:9400"]),))
    assert text == 'max by (UUID) (DCGM_FI_DEV_GPU_UTIL{cluster="a",instance=~"n1:9400|n2:9400"})'
    rate = texts(DCGM, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", match=('cluster="a"',))["gpu.energy"]
    assert rate.count("{") == rate.count('{cluster="a"}')


def test_a_counter_that_is_stuck_at_a_blank_has_no_rate() -> None:
    text = texts(DCGM, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION")["gpu.energy"]
    name = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION[60000ms]"
    assert text.startswith(f"max by (UUID) ((rate({name}) unless (max_over_time({name}) >= ")
    assert "9.22e+18 <= 1e+19" in text


def test_links_are_summed_by_the_server_without_blanks_and_without_duplicates() -> None:
    text = texts(DCGM, "DCGM_FI_PROF_NVLINK_TX_BYTES")["gpu.nvlink_tx"]
    assert text.startswith("sum by (UUID) (max by (UUID, nvlink) ((DCGM_FI_PROF_NVLINK_TX_BYTES unless (")


def test_cpu_time_is_asked_once_by_mode_never_by_core() -> None:
    found = asked(NODE, "node_cpu_seconds_total")
    texts = [Wording(NODE).ask(one, 60.0) for one in found]
    rate = "rate(node_cpu_seconds_total[60000ms])"
    assert texts[0] == f"sum by (instance, mode) (max by (instance, mode, cpu) ({rate}))"
    assert [rule.key for rule in found[0].rules] == [
        "node._cpu_all", "node._cpu_busy", "node._cpu_iowait", "node._cpu_steal",
    ]  # fmt: skip
    assert texts[1].startswith(
        "max by (instance) (sum by (instance, cpu) (max by (instance, cpu, mode) (rate("
    )
    assert 'mode!~"idle|iowait|steal"' in texts[1]
    assert texts[2] == 'count by (instance) (max by (instance, cpu) (node_cpu_seconds_total{mode=~"idle"}))'


def test_a_counter_whose_rise_is_an_event_is_asked_as_it_is_too() -> None:
    both = [Wording(NODE).ask(one, 60.0) for one in asked(NODE, "node_vmstat_oom_kill")]
    assert both == [
        "max by (instance) (rate(node_vmstat_oom_kill[60000ms]))",
        "max by (instance) (node_vmstat_oom_kill)",
    ]


def test_parts_of_a_node_are_told_apart_by_the_labels_of_their_names() -> None:
    names = ("node_infiniband_rate_bytes_per_second",)
    assert texts(NODE, *names) == {
        "port.rate": "max by (instance, device, port) (node_infiniband_rate_bytes_per_second)"
    }
    assert template_labels("{device}/{port}") == ("device", "port")


def test_a_board_s_metric_does_not_ask_for_the_instance() -> None:
    labels = LABELS | {"GPU_I_ID"}
    both = {
        one.rule.key: Wording(DCGM).ask(one, 60.0)
        for one in asked(DCGM, "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_POWER_USAGE", labels=labels)
    }
    assert both["gpu.util"].startswith("max by (UUID, GPU_I_ID)")
    assert both["gpu.power"].startswith("max by (UUID) ")


def test_two_generations_of_a_label_are_one_part_of_the_key() -> None:
    key = Key((("UUID", "uuid"), ("GPU_I_ID",)))
    assert key.labels == ("UUID", "uuid", "GPU_I_ID")
    assert key.of({"uuid": "GPU-1"}) == ("GPU-1", "")
    assert key.of({"UUID": "GPU-2", "GPU_I_ID": "1"}) == ("GPU-2", "1")


def test_boards_without_a_uuid_are_known_by_their_address_on_their_target() -> None:
    labels = frozenset({"instance", "gpu"})
    place = place_key(DCGM.labels, labels)
    assert gpu_key(DCGM.labels, labels, place, has_uuids=True).labels == ("instance", "gpu")


def test_names_and_values_are_quoted() -> None:
    assert selector("my.metric", ('a="b"',)) == '{__name__="my.metric",a="b"}'
    assert any_of("instance", ['n"1', "a.b|c"]) == r'instance=~"n\"1|a\\.b\\|c"'
    assert number(float("inf")) == "+Inf"


def test_percentiles_are_the_server_s() -> None:
    vllm = next(one for one in shipped() if one.name == "vLLM")
    text = texts(vllm, "vllm:time_to_first_token_seconds_bucket")["serve.ttft_p99"]
    assert text == (
        "max by (instance) (histogram_quantile(0.99, sum by (instance, le) "
        "(rate(vllm:time_to_first_token_seconds_bucket[60000ms]))))"
    )


def test_numbers_that_stand_in_labels_are_asked_with_their_labels() -> None:
    vllm = next(one for one in shipped() if one.name == "vLLM")
    text = texts(vllm, "vllm:cache_config_info")["serve.kv_capacity"]
    assert text.startswith("sum by (instance, num_gpu_blocks, block_size, engine) (max by (")


def test_a_node_that_a_label_names_is_asked_by_it() -> None:
    ipmi = next(one for one in shipped() if one.name == "ipmi_exporter")
    text = texts(ipmi, "ipmi_dcmi_power_consumption_watts")["node.power"]
    assert text == "max by (instance, target) (ipmi_dcmi_power_consumption_watts)"


def test_a_site_s_own_rule_is_asked_like_any_other(tmp_path: Path) -> None:
    text = """
    name = "ipmi"
    probe = ["ipmi_*"]
    metric = [{ key = "node.inlet_temp", names = ["ipmi_t"], select = "inlet", parts = ["id"], fold = "max" }]
    [select.inlet]
    only = { name = "(?i)inlet.*" }
    """
    own = parse_vocabulary(text, tmp_path / "own.toml")
    assert texts(own, "ipmi_t") == {
        "node.inlet_temp": 'max by (instance) (max by (instance, id) (ipmi_t{name=~"(?i)inlet.*"}))'
    }
