"""Slurm's commands as they go wrong: missing, chatty, cut off, hanging; and slurmrestd's answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lab.front import Front, Request, front, reply
from lab.listening import listening
from lab.watching import watching

from coldaisle.sources.errors import AccessDenied, Garbled, SourceError, TimedOut, Unreachable, Unusable
from coldaisle.sources.settings import SlurmSettings
from coldaisle.sources.slurm.commands import Commands
from coldaisle.sources.slurm.json_answers import read_jobs
from coldaisle.sources.slurm.local import LocalRunner
from coldaisle.sources.slurm.login import remote_words
from coldaisle.sources.slurm.rest import Rest
from coldaisle.sources.slurm.source import SlurmSource
from coldaisle.sources.source import TargetState

Write = Callable[[str, str], None]
VERSION = 'if [ "$1" = --version ]; then echo "slurm 23.02.7"; exit 0; fi\n'
JOBS = json.dumps({"meta": {}, "errors": [], "jobs": [{"job_id": 7, "job_state": ["RUNNING"], "nodes": "n1", "user_name": "kim",
    "name": "train", "start_time": {"set": True, "infinite": False, "number": 1_700_000_000}, "gres_detail": ["gpu:h100:2(IDX:0-1)"]}]})  # fmt: skip
NODES = json.dumps(
    {"nodes": [{"name": "n1", "state": ["MIXED"], "gres": "gpu:h100:4", "gres_used": "gpu:h100:2(IDX:0-1)"}]}
)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a command of Slurm's as a shell script; nobody else's is found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    for name in ("squeue", "scontrol", "sinfo", "sdiag", "sacct"):
        # a real one may be installed
        (folder / name).write_text("#!/bin/sh\nexit 127\n")
        (folder / name).chmod(0o755)

    def write(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return write


def door(seconds: float = 10.0) -> Commands:
    return Commands(LocalRunner(), seconds)


async def test_a_command_that_is_missing(command: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unusable, match="no command squeue") as caught:
        await door().jobs()
    assert 'via = "ssh:login1"' in caught.value.remedy
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(Unusable, match="no command squeue"):
        await door().jobs()


async def test_a_command_that_warns_first(command: Write) -> None:
    command(
        "squeue",
        f"{VERSION}echo 'squeue: warning: {{old}} plugin' >&2; echo 'Welcome to atlas {{login}}'; cat <<'EOF'\n{JOBS}\nEOF",
    )
    jobs = await door().jobs()
    assert jobs is not None
    assert [job.name for job in jobs.jobs] == ["train"]


@pytest.mark.parametrize("length", [1, 30, 120, len(JOBS) - 3])
async def test_a_command_that_returns_half_an_answer(command: Write, length: int) -> None:
    command("squeue", f"{VERSION}printf '%s' '{JOBS[:length]}'")
    with pytest.raises(Garbled, match="half an answer"):
        await door().jobs()


async def test_half_a_text(command: Write) -> None:
    command("squeue", 'echo "slurm 20.02.1"')
    command("scontrol", "printf 'JobId=1 JobName=x UserId=kim(1) GroupId=kim(1) MCS_label=N/A JobState=RUN'")
    with pytest.raises(Garbled, match="half an answer"):
        await door().jobs()
    command("scontrol", "echo 'Hello'")
    with pytest.raises(Garbled, match="no answer of Slurm's"):
        await door().nodes()
    command("scontrol", "echo 'No jobs in the system'")
    jobs = await door().jobs()
    assert jobs is not None
    assert jobs.jobs == []


async def test_a_command_that_hangs_ends_with_its_children(command: Write, tmp_path: Path) -> None:
    command("squeue", f"sleep 600 & echo $! >{tmp_path}/child; wait")
    began = time.monotonic()
    with pytest.raises(TimedOut, match="squeue has not answered within 1 s"):
        await door(1.0).jobs()
    assert time.monotonic() - began < 8.0
    child = int((tmp_path / "child").read_text())
    for _ in range(100):
        if (
            not Path(f"/proc/{child}").exists()
            or "Z" in Path(f"/proc/{child}/stat").read_text().split(")")[1][:3]
        ):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("its child lives")


async def test_a_command_that_never_stops_talking(command: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coldaisle.sources.slurm.commands.MAX_ANSWER", 5_000_000)
    command("squeue", f"{VERSION}yes '{{\"jobs\": ['")
    with pytest.raises(Garbled, match="more than 5 MB"):
        await door().jobs()


async def test_a_release_without_json_is_read_as_text(command: Write) -> None:
    line = "JobId=7 JobName=train UserId=kim(1) GroupId=kim(1) MCS_label=N/A JobState=RUNNING Partition=gpu NodeList=n1 TRES=cpu=1,gres/gpu=2  Nodes=n1 CPU_IDs=0 Mem=1 GRES=gpu:h100:2(IDX:0-1) Command=x"
    command("squeue", f"{VERSION}echo 'squeue: error: unable to load serializer/json plugin' >&2; exit 1")
    command("scontrol", f"echo '{line}'")
    one = door()
    jobs = await one.jobs()
    assert jobs is not None
    assert [(job.nodes, job.gpus, job.boards[0].numbers) for job in jobs.jobs] == [(("n1",), 2, (0, 1))]
    assert one.what == "Slurm 23.02.7, text"


@pytest.mark.parametrize(
    ("said", "error", "remedy"),
    [
        (
            "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
            Unreachable,
            "scontrol ping",
        ),
        ("slurm_load_jobs error: Socket timed out on send/recv operation", TimedOut, "sdiag"),
        ("slurm_load_jobs error: Protocol authentication error", AccessDenied, "munge"),
        ("squeue: fatal: Could not establish a configuration source", Unusable, "SLURM_CONF"),
        ("slurm_load_jobs error: \x1b[31mAccess/permission denied\x07", AccessDenied, "munge"),
    ],
)
async def test_what_slurm_says(command: Write, said: str, error: type[SourceError], remedy: str) -> None:
    command("squeue", f"{VERSION}printf '%s\\n' '{said}' >&2; exit 1")
    with pytest.raises(error) as caught:
        await door().jobs()
    assert remedy in caught.value.remedy
    assert "\x1b" not in str(caught.value)


async def test_another_squeue(command: Write) -> None:
    command("squeue", "echo 'squeue of the post office 1.0'")
    with pytest.raises(Unusable, match="not Slurm's"):
        await door().jobs()


async def test_hostile_answers(command: Write) -> None:
    """A job beyond belief is left out, and the others stay; a hostlist of a million has no node."""
    rows = [
        {"job_id": 1, "job_state": "RUNNING", "nodes": "n[1-1000000]", "name": "x" * 10_000, "gres_detail": ["gpu:8(IDX:0-7)"]},
        {"job_id": "one", "job_state": "RUNNING"},
        {"job_id": 2, "job_state": {"odd": 1}, "nodes": "@all", "start_time": 1e300},
        {"job_id": 3, "job_state": "PENDING", "tres_per_node": "gres/gpu:99999999999", "node_count": 2**62},
        {"job_id": 4, "job_state": "RUNNING", "nodes": "n1", "name": "a\u202eb\x1b[31m", "user_name": None, "user_id": 7},
    ]  # fmt: skip
    command("squeue", f"{VERSION}cat <<'EOF'\n{json.dumps({'jobs': rows})}\nEOF")
    jobs = await door().jobs()
    assert jobs is not None
    assert jobs.left_out == 1
    assert [(job.id, job.nodes, len(job.name)) for job in jobs.jobs] == [
        (1, (), 400), (2, (), 0), (3, (), 0), (4, ("n1",), 8),
    ]  # fmt: skip
    assert jobs.jobs[3].user == "7"
    command("scontrol", f"cat <<'EOF'\n{NODES}\nEOF")
    async with listening(SlurmSource(SlurmSettings(interval=0.2))) as heard:
        target = await heard.until_state("slurmctld", TargetState.OK)
        assert "1 jobs or nodes left out: not readable" in target.detail
        assert (
            "running jobs without nodes: 1; their node lists cannot be read, or name too many"
            in target.detail
        )


async def test_a_name_that_looks_like_the_next_job() -> None:
    """Pieces are cut between jobs, wherever a name pretends that one begins."""
    name = 'x"},{"job_id":666,"job_state":"RUNNING"},{"job_id": 7'
    rows = [
        {"job_id": number, "job_state": "RUNNING", "nodes": "n1", "name": name, "pad": "y" * 40_000}
        for number in range(200)
    ]
    jobs = await read_jobs(json.dumps({"meta": 1, "jobs": rows, "errors": []}, indent=1).encode(), "squeue")
    assert [job.id for job in jobs.jobs] == list(range(200))
    assert {job.name for job in jobs.jobs} == {name}


async def test_bad_bytes_in_json() -> None:
    body = JOBS.replace("train", "caf\u00e9").encode("latin-1")
    (job,) = (await read_jobs(b"warning: something\n" + body, "squeue")).jobs
    assert job.name == "caf\ufffd"


async def test_a_source_says_what_is_wrong_and_recovers(command: Write) -> None:
    command(
        "squeue",
        f"{VERSION}echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1",
    )
    command("scontrol", f"cat <<'EOF'\n{NODES}\nEOF")
    async with listening(SlurmSource(SlurmSettings(interval=0.2))) as heard:
        target = await heard.until_state("slurmctld", TargetState.FAILING)
        assert "does not answer" in target.detail
        command("squeue", f"{VERSION}cat <<'EOF'\n{JOBS}\nEOF")
        target = await heard.until_state("slurmctld", TargetState.OK)
        assert target.what == "Slurm 23.02.7, JSON by this machine"
        assert heard.nodes["n1"].gpus_used == 2


async def test_while_nothing_comes_it_says_what_to_do(command: Write) -> None:
    command("squeue", f"{VERSION}sleep 60")
    command("sdiag", "sleep 60")
    command("sacct", "sleep 60")
    async with watching(SlurmSource(SlurmSettings(interval=0.2, timeout=30.0))) as seen:
        # an accounting that hangs keeps nobody waiting
        await seen.until("it is asked", lambda one: bool(one.now.sources[0].targets), 20.0)
        (target,) = seen.now.sources[0].targets
        assert (target.state, target.detail) == (TargetState.CONNECTING, "asking slurmctld")
        assert "scontrol ping" in target.remedy


async def test_a_controller_that_is_slow_is_asked_less_often(
    command: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coldaisle.sources.slurm.source.SLOW_S", 0.1)
    command("squeue", f"{VERSION}sleep 0.3; cat <<'EOF'\n{JOBS}\nEOF")
    command("scontrol", f"cat <<'EOF'\n{NODES}\nEOF")
    source = SlurmSource(SlurmSettings(interval=0.1))
    async with listening(source) as heard:
        target = await heard.until_state("slurmctld", TargetState.SLOW)
        assert "slurmctld is busy" in target.detail
        await heard.until("eight times", lambda: source.slowness == 8)
        command("squeue", f"{VERSION}cat <<'EOF'\n{JOBS}\nEOF")
        monkeypatch.setattr("coldaisle.sources.slurm.source.SLOW_S", 10.0)
        await heard.until("as before", lambda: source.slowness == 1)


def test_words_for_a_login_shell() -> None:
    words = remote_words(["squeue", "--json"])
    assert words[:3] == ["env", "-u", "SQUEUE_FORMAT"]
    assert words[-4:] == ["LC_ALL=C", "SLURM_TIME_FORMAT=%s", "squeue", "--json"]


# --- slurmrestd ----------------------------------------------------------------------------------

OPENAPI = '{"paths": {"\\/slurm\\/v0.0.40\\/jobs\\/": {}, "/slurm/v0.0.43/jobs/": {}, "/slurm/v0.0.99/jobs/": {}, "/slurmdb/v0.0.43/jobs/": {}}}'


def rest(one: Front) -> Rest:
    return Rest(SlurmSettings(via=one.url))


async def test_the_newest_version_that_both_sides_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JWT", "SLURM_JWT=e30.eyJzdW4iOiJraW0ifQ.x")
    states = ["RUNNING"]

    def answer(request: Request) -> bytes:
        if request.path == "/openapi/v3":
            return reply(200, OPENAPI)
        if request.path.endswith("/jobs/state"):
            return reply(200, json.dumps({"jobs": [{"job_id": 7, "state": states}]}))
        if request.path.endswith("/jobs"):
            return reply(
                200, JOBS[:-1] + ', "last_update": {"set": true, "infinite": false, "number": 1700000100}}'
            )
        return reply(200, NODES)

    async with front(Front(answer=answer)) as one:
        way = rest(one)
        assert await way.jobs() is not None
        assert way.what == "slurmrestd v0.0.43"
        assert await way.jobs() is None  # every job is in the state that it was in
        states[0] = "COMPLETING"
        assert await way.jobs() is not None
        last = one.requests[-1]
        assert last.asked("update_time") == "1700000100"
        assert (last.headers["x-slurm-user-name"], last.headers["x-slurm-user-token"]) == (
            "kim",
            "e30.eyJzdW4iOiJraW0ifQ.x",
        )
        asked = [request.path for request in one.requests]
        assert asked == [
            "/openapi/v3", "/slurm/v0.0.43/jobs/state", "/slurm/v0.0.43/jobs", "/slurm/v0.0.43/jobs/state",
            "/slurm/v0.0.43/jobs/state", "/slurm/v0.0.43/jobs",
        ]  # fmt: skip
        await way.aclose()


async def test_nothing_new_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JWT", "x")
    openapi = OPENAPI.replace("v0.0.43", "v0.0.40")
    async with front(
        Front(answer=lambda r: reply(200, openapi) if "openapi" in r.path else reply(304))
    ) as one:
        way = rest(one)
        assert await way.jobs() is None
        await way.aclose()


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (reply(200, '{"paths": {}}'), Unusable, "no version of its interface"),
        (reply(200, "<html>sign in"), Unusable, "a web page"),
        (reply(302, "", extra="Location: http://evil/\r\n"), Unusable, "HTTP 302"),
        (reply(404, "Unable to find requested URL"), Unusable, "it has no"),
        (reply(401, "Authentication failure"), AccessDenied, "expired, or wrong"),
        (reply(500, '{"errors": [{"error": "Unspecified error", "error_number": -1}]}'), AccessDenied, "expired, or wrong"),
        (reply(200, "\x1b[31m\x00", extra="Content-Encoding: gzip\r\n"), Garbled, "not packed"),
    ],
)  # fmt: skip
async def test_odd_answers(
    answer: bytes, error: type[SourceError], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JWT", "hunter2")
    async with front(Front(answer=lambda _: answer)) as one:
        way = rest(one)
        with pytest.raises(error) as caught:
            await way.jobs()
        await way.aclose()
    assert said in str(caught.value)
    assert "hunter2" not in f"{caught.value}{caught.value.remedy}"


async def test_nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JWT", "x")
    way = Rest(SlurmSettings(via=str(tmp_path / "none.sock")))
    with pytest.raises(Unreachable, match="no such socket"):
        await way.jobs()
    await way.aclose()


async def test_a_token_is_read_again_when_it_is_refused(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    token.chmod(0o600)
    accepted = ["old"]

    def answer(request: Request) -> bytes:
        if request.headers.get("x-slurm-user-token") != accepted[0]:
            return reply(401, "Authentication failure")
        return reply(200, OPENAPI if "openapi" in request.path else NODES)

    async with front(Front(answer=answer)) as one:
        way = Rest(SlurmSettings(via=one.url, token_file=str(token)))
        assert len((await way.nodes()).nodes) == 1
        token.write_text("new")
        accepted[0] = "new"
        assert len((await way.nodes()).nodes) == 1
        await way.aclose()


async def test_a_time_without_jobs_has_an_empty_past(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JWT", "x")
    nothing = reply(500, '{"errors": [{"error": "Nothing found", "errno": 9003}], "jobs": []}')
    async with front(Front(answer=lambda r: reply(200, OPENAPI) if "openapi" in r.path else nothing)) as one:
        way = rest(one)
        assert await way.past(0.0, 60.0) == []
        await way.aclose()


@pytest.mark.parametrize(
    ("ahead", "took", "found"), [(0.0, 0.1, 0.0), (3.0, 0.2, 3.5), (-60.0, 1.0, -59.5), (4.0, 10.0, 0.0), (90.0, 10.0, 90.5)]
)  # fmt: skip
async def test_a_slow_answer_says_little_of_the_clock(
    ahead: float, took: float, found: float, command: Write
) -> None:
    """Half of the time of asking may have passed before it looked at its clock, or all of it."""
    now = 1_800_000_000.0
    times = iter([now - took / 2, now + took / 2])
    command("squeue", VERSION)
    command("sdiag", f"echo 'sdiag output at Thu Jan 01 00:00:00 1970 ({now + ahead:.0f})'")
    source = SlurmSource(SlurmSettings(), clock=lambda: next(times))
    teller = source._teller()
    await source._diagnose(teller, None)
    assert teller.offset_s == pytest.approx(found)
