"""Which node a series speaks of."""

from __future__ import annotations

import pytest

from coldaisle.sources.prometheus.identity import (
    Named,
    host_of,
    is_exporters_own,
    is_pod_name,
    names,
    rack_of,
)
from coldaisle.sources.settings import Rewrite
from coldaisle.sources.vocabularies import Labels

DCGM = Labels(node=("Hostname", "hostname"))


@pytest.mark.parametrize(
    ("instance", "host"),
    [
        ("10.0.3.7:9400", "10.0.3.7"),
        ("n01", "n01"),
        ("[fe80::1]:9100", "fe80::1"),
        ("http://n01:9400/metrics", "n01"),
        ("", ""),
    ],
)
def test_the_host_of_an_instance(instance: str, host: str) -> None:
    assert host_of(instance) == host


def test_an_address_is_named_by_what_the_node_there_calls_itself() -> None:
    known = names((), [({"instance": "10.0.3.7:9100"}, "r01n07.site")])
    assert known.node({"instance": "10.0.3.7:9400"}, DCGM) == Named("r01n07.site", "node_uname_info")
    assert known.node({"instance": "10.0.3.8:9400"}, DCGM) == Named("10.0.3.8", "instance")


def test_a_pod_s_name_is_never_a_node() -> None:
    pod = "nvidia-dcgm-exporter-x7k2p"
    labels = {"instance": "10.42.0.5:9400", "Hostname": pod, "pod": pod, "node": "gpu07"}
    assert names((), []).node(labels, DCGM) == Named("gpu07", "label")
    del labels["node"]
    assert names((), []).node(labels, DCGM) == Named("10.42.0.5", "instance")
    assert is_pod_name("dcgm-exporter-x7k2p", {})
    assert not is_pod_name("gke-pool-1-x7k2p", {})
    assert not is_pod_name("gpu-node-00001", {})


def test_the_exporter_s_own_word_counts_before_its_address() -> None:
    labels = {"instance": "10.0.3.7:9400", "Hostname": "r01n07"}
    assert names((), []).node(labels, DCGM) == Named("r01n07", "exporter")


def test_a_rewrite_rule_goes_first() -> None:
    rules = [Rewrite(r"10\.0\.(\d+)\.(\d+)", r"r0\1n0\2"), Rewrite("gpu(.*)", r"g\1")]
    labels = {"instance": "10.0.3.7:9400", "Hostname": "other"}
    assert names(rules, []).node(labels, DCGM) == Named("r03n07", "rewrite rule")
    assert names(rules, []).node({"instance": "x:1", "node": "gpu9"}, DCGM) == Named("g9", "rewrite rule")
    own = names(rules, [({"instance": "10.9.9.9:9100"}, "gpu8")])
    assert own.node({"instance": "10.9.9.9:9100"}, Labels()) == Named("g8", "rewrite rule")


def test_a_name_that_several_hosts_give_themselves_names_none() -> None:
    told = [({"instance": "10.0.0.1:9100"}, "golden"), ({"instance": "10.0.0.2:9100"}, "golden")]
    known = names((), told)
    assert known.claimed == ("golden",)
    assert known.node({"instance": "10.0.0.1:9400"}, DCGM) == Named("10.0.0.1", "instance")


def test_what_cannot_be_a_host_is_no_node() -> None:
    assert names((), []).node({"instance": "-oProxyCommand=x"}, DCGM) is None
    assert names((), []).node({"Hostname": "a b"}, DCGM) is None
    assert names((), []).node({"instance": "localhost:9400"}, DCGM) is None


def test_an_exporter_s_own_pod_holds_no_gpu() -> None:
    assert is_exporters_own("dcgm-exporter-x7k2p", {}, DCGM)
    assert is_exporters_own("anything", {"Hostname": "anything"}, DCGM)
    assert not is_exporters_own("train-7f9c-x7k2p", {}, DCGM)


def test_a_rack_label() -> None:
    assert rack_of({"rack": "r01"}) == ("r01", "rack")
    assert rack_of({"zone": "a"}) is None
