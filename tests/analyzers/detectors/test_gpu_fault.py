"""GPU faults: each class of XID, memory errors, lost, missing and dead boards; and what only looks like one."""

from __future__ import annotations

import numpy as np
import pytest
from lab.telemetry import AT, Cells, dense, found, gpu_ref, gpus, idle, job, window_of, xid

from coldaisle.analyzers.finding import Candidate, Severity
from coldaisle.sources.source import Event, NodeFact

GPUS = gpus("n01", "n02")
JOB = (job("1", GPUS),)


def said(cells: Cells | None = None, **more: object) -> tuple[Candidate, ...]:
    told = {"gpus": GPUS, "jobs": JOB, "metrics": dense(len(GPUS)) if cells is None else cells, **more}
    return found("gpu_fault", window_of(**told))  # type: ignore[arg-type]


def one(candidates: tuple[Candidate, ...]) -> Candidate:
    (candidate,) = candidates
    return candidate


def test_a_healthy_job_is_silent() -> None:
    assert said() == ()


# --- XIDs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "variant", "severity"),
    [(79, "lost", Severity.CRITICAL), (119, "lost", Severity.CRITICAL), (48, "memory", Severity.CRITICAL), (95, "memory", Severity.CRITICAL),
     (74, "link", Severity.CRITICAL), (149, "link", Severity.CRITICAL), (62, "fault", Severity.CRITICAL), (109, "fault", Severity.CRITICAL),
     (94, "memory", Severity.WARNING), (31, "application", Severity.WARNING), (13, "application", Severity.WARNING)],
)  # fmt: skip
def test_one_xid_is_told_by_its_class(code: int, variant: str, severity: Severity) -> None:
    candidate = one(said(events=[xid("n01/3", code)]))
    assert (candidate.variant, candidate.severity) == (variant, severity)
    assert candidate.roots.gpus == ("n01/3",)
    assert candidate.is_immediate
    assert candidate.since == AT - 2.0
    assert candidate.words["xids"] == f" (XID {code})"


@pytest.mark.parametrize("code", [43, 45, 63, 92, 137, 154])
def test_what_follows_from_something_else_says_nothing(code: int) -> None:
    assert said(events=[xid("n01/3", code)]) == ()


def test_a_row_remap_with_its_error_is_told_by_the_error() -> None:
    candidate = one(said(events=[xid("n01/3", 48), xid("n01/3", 63)]))
    assert candidate.words["xids"] == " (XID 48)"


def test_after_a_cancelled_job_the_clean_up_is_silent() -> None:
    cancelled = (job("1", GPUS, until=AT - 20.0),)
    assert said(jobs=cancelled, events=[xid(key, code, AT - 19) for key in GPUS for code in (43, 45)]) == ()


def test_the_same_board_again_and_again_is_suspected() -> None:
    once = one(said(events=[xid("n01/3", 31, AT - 5)]))
    storm = one(said(events=[xid("n01/3", 31, AT - 5 - s) for s in range(20)]))
    again = one(said(events=[xid("n01/3", 31, AT - 700), xid("n01/3", 31, AT - 5)]))
    assert (once.variant, storm.variant, again.variant) == ("application", "application", "fault")


def test_a_program_that_failed_is_not_the_job_that_came_after_it() -> None:
    later = (job("2", GPUS, since=AT - 100.0),)
    assert said(jobs=later, events=[xid("n01/3", 31, AT - 120)]) == ()
    assert one(said(jobs=later, events=[xid("n01/3", 31, AT - 60)])).variant == "application"
    assert one(said(jobs=later, events=[xid("n01/3", 79, AT - 120)])).variant == "lost", "the board's own"


def test_many_boards_once_each_is_the_program() -> None:
    assert {c.variant for c in said(events=[xid(key, 31) for key in GPUS])} == {"application"}


def test_the_kernel_writes_otherwise_than_exporters() -> None:
    line = "Xid (PCI:0000:13:00): 79, pid='<unknown>', GPU has fallen off the bus."
    candidate = one(said(events=[Event(AT - 2, gpu_ref("n01/3"), "xid", line)]))
    assert candidate.words["xids"] == " (XID 79)"


def test_an_event_of_yesterday_is_no_news() -> None:
    assert said(events=[xid("n01/3", 79, AT - 86400.0)]) == ()


def test_a_board_that_is_silent_after_an_xid_is_told_with_it() -> None:
    cells = idle(dense(len(GPUS)), range(len(GPUS)), slice(-10, None))  # its job hangs
    for key in cells:
        cells[key][-10:, 3] = np.nan
    candidate = one(said(cells, events=[xid("n01/3", 79, AT - 49)]))
    assert (candidate.variant, candidate.words["xids"]) == ("lost", " (XID 79)")
    assert candidate.words["how"].startswith("its series ended")


def silent(cells: Cells, gpu: int = 3, polls: int = 40) -> Cells:
    for key in cells:
        cells[key][-polls:, gpu] = np.nan
    return cells


def test_a_board_whose_label_went_with_its_series_is_the_job_s_that_stands_still_since() -> None:
    rest = tuple(key for key in GPUS if key != "n01/3")
    hangs = silent(idle(dense(len(GPUS)), range(len(GPUS)), slice(-40, None)))
    before, after = job("1", rest), job("1", rest, since=AT - 100.0)
    assert one(said(hangs, jobs=(before,))).roots.jobs == (before.id,)
    assert one(said(hangs, jobs=(after,))).roots.jobs == ()
    assert (
        one(said(silent(dense(len(GPUS))), jobs=(before,))).roots.jobs == ()
    )  # it goes on without that board


def test_of_two_jobs_on_a_node_neither_is_said_to_have_had_the_board() -> None:
    two = (job("1", GPUS[:3]), job("2", GPUS[4:]))
    hangs = silent(idle(dense(len(GPUS)), range(len(GPUS)), slice(-40, None)))
    assert one(said(hangs, jobs=two)).roots.jobs == ()


# --- boards that are back -------------------------------------------------------------------------------


def test_a_board_that_its_source_calls_back_is_not_lost() -> None:
    back = Event(AT - 60, gpu_ref("n01/3"), "gpu_back", "n01/3 answers again")
    assert said(events=[xid("n01/3", 79, AT - 300), back]) == ()
    assert one(said(events=[back, xid("n01/3", 79, AT - 30)])).variant == "lost"


def test_a_board_that_was_silent_and_moves_again_is_back() -> None:
    cells = dense(len(GPUS))
    for key in cells:
        cells[key][-60:-10, 3] = np.nan
    assert said(cells, events=[xid("n01/3", 79, AT - 300)]) == ()


def test_a_board_that_repeats_itself_after_a_silence_is_not_back() -> None:
    cells = dense(len(GPUS))
    for key in cells:
        cells[key][-60:-10, 3] = np.nan
    cells["gpu.power"][-10:, 3] = 107.0
    assert one(said(cells, events=[xid("n01/3", 79, AT - 300)])).variant == "lost"


def test_a_reset_that_was_asked_for_is_asked_for_still() -> None:
    back = Event(AT - 60, gpu_ref("n01/3"), "gpu_back", "n01/3 answers again")
    candidate = one(said(events=[xid("n01/3", 79, AT - 300), xid("n01/3", 48, AT - 299), back]))
    assert (candidate.variant, candidate.words["xids"]) == ("memory", " (XID 48)")


# --- the sticky gauge -----------------------------------------------------------------------------------


def test_a_gauge_that_changes_is_an_xid() -> None:
    cells = dense(len(GPUS), fields="default")
    cells["gpu.xid_last"][-4:, 3] = 79.0
    candidate = one(said(cells))
    assert (candidate.variant, candidate.since) == ("lost", AT - 15.0)


def test_a_gauge_that_stood_there_before_is_none() -> None:
    cells = dense(len(GPUS), fields="default")
    cells["gpu.xid_last"][:, 3] = 79.0
    assert said(cells) == ()


def test_a_gauge_that_falls_back_or_is_dropped_is_none() -> None:
    cells = dense(len(GPUS), fields="default")
    cells["gpu.xid_last"][:-30, 3] = 79.0
    cells["gpu.xid_last"][:, 4] = 31.0
    cells["gpu.xid_last"][-20:-10, 4] = np.nan
    assert said(cells) == ()


def test_a_gauge_that_comes_into_sight_after_a_gap_is_none() -> None:
    """An exporter was restarted: what it shows then may be of long ago."""
    cells = dense(len(GPUS), fields="default")
    cells["gpu.xid_last"][:-10, 3] = np.nan
    cells["gpu.xid_last"][-10:, 3] = 79.0
    assert said(cells) == ()


def test_event_and_gauge_are_one_report() -> None:
    cells = dense(len(GPUS))
    cells["gpu.xid_last"][-1:, 3] = 31.0
    assert one(said(cells, events=[xid("n01/3", 31)])).variant == "application"


# --- memory ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["gpu.ecc_dbe", "gpu.remapped_uncorrectable"])
def test_new_uncorrectable_errors(key: str) -> None:
    cells = dense(len(GPUS))
    cells[key][:, 3] = 4.0
    cells[key][-12:, 3] = 6.0
    candidate = one(said(cells))
    assert (candidate.variant, candidate.severity, candidate.since) == (
        "memory",
        Severity.CRITICAL,
        AT - 55.0,
    )
    assert candidate.evidence[0].value == 2.0


@pytest.mark.parametrize("key", ["gpu.ecc_dbe", "gpu.remapped_uncorrectable"])
def test_old_errors_and_counters_that_reset_are_silent(key: str) -> None:
    cells = dense(len(GPUS))
    cells[key][:, 3] = 4.0
    cells[key][-60:, 3] = 0.0
    cells[key][:, 4] = 9.0
    assert said(cells) == ()


def test_corrected_errors_are_silent() -> None:
    cells = dense(len(GPUS))
    cells["gpu.ecc_sbe"] += np.cumsum(np.ones((len(cells["gpu.ecc_sbe"]), len(GPUS))), axis=0)
    assert said(cells) == ()


def test_a_remap_that_failed_and_one_that_waits() -> None:
    cells = dense(len(GPUS))
    cells["gpu.remap_failure"][-5:, 3] = 1.0
    cells["gpu.remap_pending"][-5:, 4] = 1.0
    failed, waits = sorted(said(cells), key=lambda c: c.roots.gpus)
    assert (failed.variant, failed.severity) == ("memory", Severity.CRITICAL)
    assert (waits.variant, waits.severity) == ("remap", Severity.INFO)


# --- lost, dead, missing ----------------------------------------------------------------------------------


def test_a_board_whose_series_end_while_its_node_goes_on() -> None:
    cells = idle(dense(len(GPUS)), range(len(GPUS)), slice(-10, None))  # its job hangs
    for key in cells:
        cells[key][-10:, 3] = np.nan
    candidate = one(said(cells))
    assert (candidate.variant, candidate.roots.gpus, candidate.since) == ("lost", ("n01/3",), AT - 50.0)


def test_a_sample_that_is_dropped_is_no_lost_board() -> None:
    cells = dense(len(GPUS))
    for key in cells:
        cells[key][-2:, 3] = np.nan
    assert said(cells) == ()


def test_a_node_that_falls_silent_has_lost_no_boards() -> None:
    cells = dense(len(GPUS))
    for key in cells:
        cells[key][-30:, :8] = np.nan
    assert said(cells) == ()


def test_a_cluster_wide_gap_has_lost_no_boards() -> None:
    assert said(late=120.0) == ()


def corpse(cells: Cells, gpu: int, polls: int) -> Cells:
    for values in cells.values():
        values[-polls:, gpu] = values[-polls, gpu]
    return cells


@pytest.mark.parametrize("step", [1.0, 5.0, 15.0, 30.0])
def test_a_dead_board_behind_a_frozen_feed(step: float) -> None:
    polls = max(int(120 / step), 6)
    cells = idle(
        dense(len(GPUS), fields="default"), [g for g in range(len(GPUS)) if g != 3], slice(-polls, None)
    )
    candidate = one(said(corpse(cells, 3, polls), step=step))
    assert (candidate.variant, candidate.roots.gpus, candidate.severity) == (
        "frozen",
        ("n01/3",),
        Severity.CRITICAL,
    )
    assert candidate.since == AT - (polls - 1) * step


def test_where_its_job_stands_still_a_minute_of_frozen_feed_is_enough() -> None:
    others = [g for g in range(len(GPUS)) if g != 3]
    polls = 14
    waiting = idle(dense(len(GPUS), fields="default"), others, slice(-polls, None))
    assert one(said(corpse(waiting, 3, polls))).variant == "frozen"
    assert said(corpse(dense(len(GPUS), fields="default"), 3, polls)) == ()
    assert said(corpse(dense(len(GPUS), fields="default"), 3, polls), jobs=()) == ()
    longer = corpse(dense(len(GPUS), fields="default"), 3, 20)
    assert one(said(longer, jobs=())).variant == "frozen"


def test_a_board_that_comes_late_after_its_node_was_silent() -> None:
    cells = dense(len(GPUS), fields="default")
    for values in cells.values():
        values[-4:, 3] = np.nan
        values[-4:-1, :8] = np.nan
    assert said(cells, jobs=()) == ()


def test_a_feed_that_froze_without_its_utilisation() -> None:
    cells = idle(
        dense(len(GPUS), fields="default"), [g for g in range(len(GPUS)) if g != 3], slice(-30, None)
    )
    cells["gpu.util"][-30:, 3] = np.nan
    assert one(said(corpse(cells, 3, 30))).variant == "frozen"


def test_steady_work_may_keep_its_watts_and_degrees() -> None:
    """As on GWDG's ggpu139: 128 W, 27 C, 1410 MHz at 100 % for forty minutes, and alive: the energy counter goes on."""
    cells = dense(len(GPUS), fields="default")
    for key in ("gpu.power", "gpu.temp", "gpu.sm_clock", "gpu.util", "gpu.mem_util"):
        cells[key][-40:, 3] = cells[key][-40, 3]
    assert said(cells, jobs=()) == ()


def test_where_samples_get_lost_silence_has_to_last_longer() -> None:
    cells = dense(len(GPUS), fields="default")
    draw = np.random.default_rng(6)
    dropped = draw.random(cells["gpu.util"].shape) < 0.1
    dropped[-5:, 3] = True
    for values in cells.values():
        values[dropped] = np.nan
    assert said(cells, jobs=()) == ()
    for values in cells.values():
        values[-12:, 3] = np.nan
    assert one(said(cells, jobs=())).roots.gpus == ("n01/3",)


def test_where_a_job_waits_fewer_polls_without_a_sample_tell_a_lost_board() -> None:
    dropped = np.random.default_rng(4).random(dense(len(GPUS), fields="default")["gpu.util"].shape) < 0.01

    def polls_until_said(waits: bool) -> int:
        for missed in range(1, 12):
            cells = dense(len(GPUS), fields="default")
            if waits:
                idle(cells, [g for g in range(len(GPUS)) if g != 3], slice(-5, None))
            for values in cells.values():
                values[dropped] = np.nan
                values[-missed:, 3] = np.nan
            if said(cells, jobs=JOB if waits else ()):
                return missed
        return 99

    assert 3 <= polls_until_said(waits=True) < polls_until_said(waits=False) <= 6


def test_in_a_job_that_has_hung_for_minutes_silence_means_no_more_than_elsewhere() -> None:
    dropped = np.random.default_rng(4).random(dense(len(GPUS), fields="default")["gpu.util"].shape) < 0.01

    def is_said(missed: int, since: int) -> bool:
        cells = dense(len(GPUS), fields="default")
        idle(cells, [g for g in range(len(GPUS)) if g != 3], slice(-since, None))
        for values in cells.values():
            values[dropped] = np.nan
            values[-missed:, 3] = np.nan
        return bool(said(cells, jobs=JOB))

    just_now = next(missed for missed in range(1, 12) if is_said(missed, missed))
    assert not is_said(just_now, 40)
    assert is_said(just_now + 2, 40)


def test_a_feed_that_stands_for_a_moment_is_alive() -> None:
    assert said(corpse(dense(len(GPUS)), 3, 4), jobs=()) == ()


def test_a_board_at_rest_may_stand_still_for_ever() -> None:
    assert said(idle(dense(len(GPUS)), range(len(GPUS)))) == ()


def test_a_board_that_hardly_works_may_keep_its_watts() -> None:
    """As on GWDG's ggpu129: 58.6 W, 23 C, 1095 MHz for fifty minutes at a utilisation of 3 to 5 %."""
    cells = idle(dense(len(GPUS)), range(len(GPUS)))
    cells["gpu.util"][:] = np.random.default_rng(2).integers(3, 8, cells["gpu.util"].shape) / 100
    assert said(cells, jobs=()) == ()


def test_all_boards_of_a_node_that_repeat_themselves_are_their_exporter() -> None:
    cells = dense(len(GPUS))
    for gpu in range(8):
        corpse(cells, gpu, 40)
    assert said(cells, jobs=()) == ()


def test_all_boards_of_a_node_that_fell_off_the_bus_are_dead() -> None:
    """GWDG: the baseboard failed, the gauge has been sticky for hours, and the exporter serves four corpses."""
    cells = dense(len(GPUS), fields="default")
    cells["gpu.xid_last"][:, :8] = 79.0
    for gpu in range(8):
        corpse(cells, gpu, 300)
    assert {c.roots.gpus[0] for c in said(cells)} == set(GPUS[:8])


def test_fewer_boards_than_the_inventory_has() -> None:
    told = [NodeFact(AT - 3600, "n02", gpus_expected=8)]
    cells = {key: values[:, :15] for key, values in dense(len(GPUS)).items()}
    candidate = one(said(cells, gpus=GPUS[:15], jobs=(), facts=told, with_facts=False))
    assert (candidate.variant, candidate.roots.nodes, candidate.words["how"]) == (
        "missing",
        ("n02",),
        "7 of 8",
    )


# --- what nobody has reset ------------------------------------------------------------------------------


def stood(key: str, value: float, polls: int, before: float = 0.0) -> Cells:
    """A gauge or counter that became another one so many polls ago; an hour of samples every 15 s."""
    cells = dense(len(GPUS), 240)
    cells[key][:-polls, 3], cells[key][-polls:, 3] = before, value
    return cells


def test_an_xid_that_asks_for_a_reset_stands_until_one() -> None:
    candidate = one(said(stood("gpu.xid_last", 95, 100), step=15.0))
    assert (candidate.variant, candidate.severity, candidate.loss) == (
        "memory",
        Severity.WARNING,
        0.0,
    )  # its job goes on
    assert candidate.since == pytest.approx(AT - 99 * 15.0, abs=60)
    assert candidate.words["how"] == "24 min ago, and no reset since"


def test_where_the_job_stands_still_since_it_costs_all_of_it() -> None:
    cells = stood("gpu.xid_last", 95, 100)
    candidate = one(said(idle(cells, range(len(GPUS)), slice(-100, None)), step=15.0))
    assert (candidate.severity, candidate.loss) == (Severity.CRITICAL, 1.0)


def test_what_stands_there_for_as_long_as_anybody_looks_and_what_a_program_did_says_nothing() -> None:
    assert said(stood("gpu.xid_last", 95, 240), step=15.0) == ()
    assert said(stood("gpu.xid_last", 31, 100), step=15.0) == ()
    assert said(stood("gpu.xid_last", 0, 100, before=95), step=15.0) == ()


def test_a_board_that_was_away_since_was_reset() -> None:
    cells = stood("gpu.xid_last", 95, 200)
    for values in cells.values():
        values[-120:-100, 3] = np.nan
    assert said(cells, step=15.0) == ()


def test_uncorrectable_errors_stand_until_a_reset() -> None:
    candidate = one(said(stood("gpu.ecc_dbe", 5, 100, before=3), step=15.0))
    assert (candidate.variant, candidate.severity) == ("memory", Severity.WARNING)
    assert candidate.words["how"].startswith("2 uncorrectable errors 24 min ago")
