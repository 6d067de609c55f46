"""Accounting in files: columns by their header, steps, names that pretend, and what is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from coldaisle.sources.errors import ConfigError
from coldaisle.sources.slurm.sacct import FIELDS, MAX_ACCOUNTED, command, cpu_seconds, read, read_file

HEAD = "|".join(FIELDS)


def line(**cells: str) -> str:
    usual = {
        "JobIDRaw": "4711", "JobID": "4711", "User": "ann", "Account": "ml", "Partition": "gpu", "State": "COMPLETED",
        "Submit": "1772323200", "Eligible": "1772323200", "Start": "1772326800", "End": "1772334000",
        "TimelimitRaw": "120", "NNodes": "1", "NodeList": "n[01-02]", "AllocTRES": "cpu=48,mem=240G,gres/gpu=8",
        "ReqTRES": "cpu=48,mem=240G,gres/gpu=8", "TotalCPU": "1-02:03:04", "JobName": "train",
    }  # fmt: skip
    return "|".join((usual | cells).get(field, "") for field in FIELDS)


def test_a_job_is_read_with_what_its_steps_touched() -> None:
    step = line(JobIDRaw="4711.0", JobID="4711.0", User="", TRESUsageInTot="cpu=01:00:00,mem=123456K")
    batch = line(JobIDRaw="4711.batch", JobID="4711.batch", User="", TRESUsageInTot="mem=1G")
    (job,) = read([HEAD, line(), batch, step], "file").jobs
    assert (job.id, job.user, job.account, job.partition, job.state) == (
        "4711",
        "ann",
        "ml",
        "gpu",
        "COMPLETED",
    )
    assert (job.submitted, job.start, job.end) == (1772323200.0, 1772326800.0, 1772334000.0)
    assert (job.gpus, job.cpus, job.memory_asked, job.memory_used) == (8, 48, 240 * 2**30, 2**30)
    assert (job.limit_s, job.cpu_s, job.nodes) == (7200.0, 93784.0, ("n01", "n02"))


def test_columns_are_found_by_their_names_in_any_order() -> None:
    said = [
        "State,JobID,AllocTRES,Start,End",
        'FAILED,7_3,"x"',
        "TIMEOUT,8_4,gres/gpu:h100=2,2026-03-01T00:00:00,2026-03-01T02:00:00",
    ]
    told = read(said, "file")
    (job,) = told.jobs
    assert (job.id, job.state, job.gpus, job.user) == ("8_4", "TIMEOUT", 2, "")
    assert job.end is not None
    assert job.start is not None
    assert job.end - job.start == 7200.0
    assert told.left_out == 1


def test_a_name_with_separators_and_line_ends_is_no_other_job() -> None:
    said = [HEAD, line(JobName="a|b|4712|x"), "4713|evil", "", line(JobIDRaw="4714", JobName="")]
    told = read(said, "file")
    assert [(job.id, job.name) for job in told.jobs] == [("4711", "a|b|4712|x"), ("4714", "")]
    assert told.left_out == 1


@pytest.mark.parametrize(
    ("cells", "state", "gpus", "has_started"),
    [
        ({"State": "CANCELLED by 1000"}, "CANCELLED", 8, True),
        ({"State": "PENDING", "Start": "Unknown", "End": "Unknown", "AllocTRES": "", "NodeList": "None assigned"}, "PENDING", 8, False),
        ({"State": "CANCELLED by 0", "Start": "None", "AllocTRES": ""}, "CANCELLED", 8, False),
        ({"State": "RUNNING", "End": "Unknown"}, "RUNNING", 8, True),
        ({"AllocTRES": "cpu=1,mem=1G", "ReqTRES": "cpu=1"}, "COMPLETED", None, True),
    ],
)  # fmt: skip
def test_states(cells: dict[str, str], state: str, gpus: int | None, has_started: bool) -> None:
    (job,) = read([HEAD, line(**cells)], "file").jobs
    assert (job.state, job.gpus, job.start is not None) == (state, gpus, has_started)


def test_a_requeued_job_is_there_once_a_run() -> None:
    first, second = line(State="NODE_FAIL"), line(Start="1772340000", End="1772350000")
    assert [job.state for job in read([HEAD, first, second], "file").jobs] == ["NODE_FAIL", "COMPLETED"]


def test_without_a_header_the_command_is_taken_at_its_word() -> None:
    assert [job.id for job in read([line(), line(JobIDRaw="4712")], "file").jobs] == ["4711", "4712"]


@pytest.mark.parametrize("said", [[], ["", "  "], ["<html>"], ["a|b|c", "1|2|3"]])
def test_what_is_no_accounting_says_how_to_make_it(said: list[str]) -> None:
    with pytest.raises(ConfigError, match="file") as caught:
        read(said, "file")
    assert "sacct --allusers" in caught.value.remedy


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_file(tmp_path / "none")
    (tmp_path / "garbage").write_bytes(bytes(range(256)) * 100)
    with pytest.raises(ConfigError):
        read_file(tmp_path / "garbage")


@pytest.mark.parametrize(
    ("told", "seconds"),
    [("03:04", 184.0), ("01:03:04.5", 3784.5), ("00:00:00", None), ("", None), ("x", None)],
)
def test_cpu_time(told: str, seconds: float | None) -> None:
    assert cpu_seconds(told) == seconds


def test_the_command_asks_for_all_that_is_read() -> None:
    assert all(field in command("now-7days") for field in FIELDS)
    assert MAX_ACCOUNTED > 1_000_000


def test_commas_separate_where_the_other_commas_are_in_quotes() -> None:
    head = "JobID,JobName,User,State,Submit,Start,End,NodeList,AllocTRES"
    quoted = '7,"a, b",ann,COMPLETED,1000,2000,3000,"a[01,03]","cpu=8,gres/gpu=16,node=2"'
    told = read([head, quoted, quoted.replace('"', "")], "sacct.csv")
    (job,) = told.jobs
    assert (job.name, job.gpus, job.nodes, told.left_out) == ("a, b", 16, ("a01", "a03"), 1)


def test_a_file_without_a_single_job_is_none() -> None:
    with pytest.raises(ConfigError, match="no line of 1 is a job"):
        read(["JobID|State", "---|---"], "sacct.txt")


def test_what_cannot_be_true_spoils_nothing() -> None:
    head = "JobID|State|Submit|Start|End|AllocTRES"
    told = read(
        [head, "1|NODE_FAIL|1000|3000|2000|gres/gpu=4", "2|RUNNING|1000|3000|Unknown|gres/gpu=99999999999"],
        "x",
    )
    backwards, vast = told.jobs
    assert (backwards.start, backwards.end) == (3000, 3000)
    assert vast.gpus is None
