"""Where nodes stand, and how that is known."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldaisle.sources.errors import ConfigError
from coldaisle.sources.nodesets import expand
from coldaisle.sources.racks import (
    GROUPED,
    LEARNT,
    Placement,
    RackRules,
    compile_pattern,
    group,
    learn,
    place,
    read_table,
    short_name,
    table_from,
)


def racks_of(nodes: str, rules: RackRules | None = None) -> dict[str, int]:
    """Racks with their sizes, in order."""
    places = place(expand(nodes), rules or RackRules())
    return dict(Counter(placement.rack for placement in places.values()))


@pytest.mark.parametrize(
    ("nodes", "racks"),
    [
        ("rack[01-02]-node[01-08]", {"rack01": 8, "rack02": 8}),
        ("r[1-12]n[01-04]", {f"r{n}": 4 for n in range(1, 13)}),
        ("atlas-r[01-02]-n[1-4]", {"atlas-r01": 4, "atlas-r02": 4}),
        ("r[1-2]i[0-3]n[0-8]", {"r1": 36, "r2": 36}),
        ("x[1000-1001]c[0-7]s[0-7]b0n0", {"x1000": 64, "x1001": 64}),
        ("gpu-[20-21]-[1-15]", {"gpu-20": 15, "gpu-21": 15}),
        ("rpg-93-[1-9],rpg-94-[1-8]", {"rpg-93": 9, "rpg-94": 8}),
        ("a[01-02]u[10-20]", {"a01": 11, "a02": 11}),
        ("sh02-[01-03]n[10-19]", {"sh02-01": 10, "sh02-02": 10, "sh02-03": 10}),
        ("r01n01,r02n01", {"r01": 1, "r02": 1}),
    ],
)
def test_names_give_racks_away(nodes: str, racks: dict[str, int]) -> None:
    assert racks_of(nodes) == racks
    assert {placement.how for placement in place(expand(nodes)).values()} == {LEARNT}


@pytest.mark.parametrize(
    "nodes",
    [
        "n[001-064]",  # no rack in the name
        "rack01-node[01-08]",  # one rack proves nothing
        "dgx-a100-[01-20],dgx-h100-[01-20]",  # models, not racks
        "ip-10-0-[1-4]-[10-19]",  # subnets, not racks
        "gpu-1-1,gpu-2-1,gpu-3-1",  # a rack for each node
        "job-1-[1-100],job-2-[1-2],job-3-[1-3]",  # sizes that differ too much
        "10.0.[1-2].[1-8]",
    ],
)
def test_names_that_are_not_believed(nodes: str) -> None:
    assert learn(expand(nodes)) == {}
    assert {placement.how for placement in place(expand(nodes)).values()} == {GROUPED}


def test_a_few_other_names_do_not_spoil_the_lesson() -> None:
    places = place([*expand("r[01-04]n[01-08]"), "login1", "login2"])
    assert places["r03n05"] == Placement("r03", LEARNT)
    assert places["login1"] == Placement("login[1-2]", GROUPED)


def test_without_racks_neighbours_stay_together() -> None:
    assert racks_of("n[001-020]") == {"n[001-008]": 8, "n[009-016]": 8, "n[017-020]": 4}


def test_a_node_that_joins_later_moves_no_other() -> None:
    before = group(expand("n[001-002,004-016]"))
    after = group(expand("n[001-016]"))
    assert before["n009"].rack == after["n009"].rack == "n[009-016]"


def test_sparse_numbers_and_odd_names_do_not_make_a_rack_each() -> None:
    assert racks_of("n17,n133,n250,n391") == {"n[17,133,250,391]": 4}
    assert racks_of("alice,bob,carol") == {"alice,bob,carol": 3}


def test_addresses_stay_whole() -> None:
    assert short_name("10.0.0.1") == "10.0.0.1"
    assert short_name("n1.example.org") == "n1"
    assert racks_of("10.0.0.[1-3]") == {"10.0.0.[1-3]": 3}


def test_the_site_comes_first_then_its_pattern_then_what_sources_report() -> None:
    rules = RackRules(table={"a1": Placement("T1", "racks.csv")}, pattern=compile_pattern(r"(?P<rack>b)\d"))
    places = place(
        ["a1", "b1", "c1"],
        rules,
        {"a1": ("X", "simulator"), "b1": ("X", "simulator"), "c1": ("X", "simulator")},
    )
    assert places == {
        "a1": Placement("T1", "racks.csv"),
        "b1": Placement("b", "pattern"),
        "c1": Placement("X", "simulator"),
    }


def test_domains_do_not_matter_to_the_table() -> None:
    rules = RackRules(table={"n1.example.org": Placement("r1", "t"), "n2": Placement("r2", "t")})
    places = place(["n1", "n2.example.org"], rules)
    assert {node: placement.rack for node, placement in places.items()} == {
        "n1": "r1",
        "n2.example.org": "r2",
    }


def test_racks_and_nodes_come_in_natural_order() -> None:
    places = place(["r10n1", "r2n10", "r2n2", "r10n2"])
    assert list(places) == ["r2n2", "r2n10", "r10n1", "r10n2"]


@given(
    st.lists(
        st.one_of(
            st.text(min_size=1, max_size=20),
            st.from_regex(r"[a-z]{1,2}[0-9]{1,3}[a-z.-]?[0-9]{0,3}", fullmatch=True),
        ),
        unique=True,
    )
)
def test_every_node_has_a_place(nodes: list[str]) -> None:
    places = place(nodes)
    assert set(places) == set(nodes)
    assert all(placement.rack and placement.how for placement in places.values())


def test_nodes_alike_without_a_number_have_a_place() -> None:
    assert set(place(["login.a", "login.b", "n1"])) == {"login.a", "login.b", "n1"}


@pytest.mark.parametrize(
    ("pattern", "problem"), [("r(", "not a regular expression"), (r"r\d+", "no group named rack")]
)
def test_patterns_that_cannot_be_used(pattern: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        compile_pattern(pattern, file=Path("c.toml"), line=7)
    assert str(caught.value).startswith("c.toml:7: ")
    assert "(?P<rack>" in caught.value.remedy


def write(folder: Path, text: str) -> Path:
    path = folder / "racks.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_with_a_header_in_any_order(tmp_path: Path) -> None:
    path = write(tmp_path, '\ufeffRack,Host,U,PDU\n# the east row\n\nr01,"n[1-2,4]",12,p1\nr02,n3,,\n')
    assert read_table(path) == {
        "n1": Placement("r01", "racks.csv", 12, "p1"),
        "n2": Placement("r01", "racks.csv", 12, "p1"),
        "n4": Placement("r01", "racks.csv", 12, "p1"),
        "n3": Placement("r02", "racks.csv"),
    }


def test_a_table_without_a_header(tmp_path: Path) -> None:
    assert read_table(write(tmp_path, "n[1-2],r01\nn3, r02")) == {
        "n1": Placement("r01", "racks.csv"),
        "n2": Placement("r01", "racks.csv"),
        "n3": Placement("r02", "racks.csv"),
    }


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("host,rack\nn1,r1\nn2\n", 3, "no rack"),
        ("host,rack\nn[1,3],r1\n", 2, "bracket"),
        ("host,rack\n,r1\n", 2, "host column"),
        ("n1,r1\nn2,r1\nn1,r2\n", 3, "n1 stands in rack r2, and in r1 on line 1"),
        ("host,rack,u\nn1,r1,top\n", 2, "u column"),
        ("n[1-99999999],r1\n", 1, "more than 100,000"),
        ("n[1-90000],r1\nm[1-90000],r2\n", 2, "more than 100,000 nodes"),
        ('n1,"' + "x" * 200_000 + '"\n', 1, "not CSV"),
    ],
)
def test_mistakes_in_a_table_have_a_line_and_a_remedy(
    tmp_path: Path, text: str, line: int, problem: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=problem) as caught:
        read_table(path)
    assert (caught.value.file, caught.value.line) == (path, line)
    assert caught.value.remedy


def test_a_table_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"n1,r\xff\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_table(tmp_path / "binary.csv")


def test_a_map_of_racks() -> None:
    assert table_from({"r1": ("n1", "n2")}, "configuration") == {
        "n1": Placement("r1", "configuration"),
        "n2": Placement("r1", "configuration"),
    }
