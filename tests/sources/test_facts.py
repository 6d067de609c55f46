"""What was said already: jobs that labels name, as they begin, change and end."""

from __future__ import annotations

from coldaisle.sources.facts import UNHEARD_JOB_S, JobBook, holdings
from coldaisle.sources.source import GpuRef
from coldaisle.sources.translation import Job

BOARDS = tuple(GpuRef("n01", uuid=f"GPU-{number}") for number in range(4))
AT = 1_772_331_180.0


def held(job: str, *boards: GpuRef) -> list[Job]:
    return [Job(job, "train", board) for board in boards]


def test_a_board_that_falls_silent_is_not_given_back_while_its_job_goes_on() -> None:
    book = JobBook()
    book.update(holdings(held("slurm:7", *BOARDS)), AT, heard=frozenset(BOARDS))
    rest = BOARDS[:3]
    assert not book.update(holdings(held("slurm:7", *rest)), AT + 30, heard=frozenset(rest))
    (ended,) = book.update({}, AT + 60, heard=frozenset(rest))
    assert (ended.until, set(ended.gpus or ())) == (AT + 60, set(BOARDS))


def test_a_board_that_is_heard_without_its_job_or_with_another_one_was_given_back() -> None:
    book = JobBook()
    book.update(holdings(held("slurm:7", *BOARDS)), AT, heard=frozenset(BOARDS))
    (less,) = book.update(holdings(held("slurm:7", *BOARDS[:3])), AT + 30, heard=frozenset(BOARDS))
    assert less.gpus == BOARDS[:3]
    both = [*held("slurm:7", *BOARDS[:2]), *held("slurm:8", BOARDS[2])]
    facts = {fact.id: fact for fact in book.update(holdings(both), AT + 60, heard=frozenset(BOARDS))}
    assert facts["slurm:7"].gpus == BOARDS[:2]
    assert facts["slurm:8"].gpus == (BOARDS[2],)


def test_where_nobody_says_what_is_heard_labels_alone_count() -> None:
    book = JobBook()
    book.update(holdings(held("slurm:7", *BOARDS)), AT)
    (less,) = book.update(holdings(held("slurm:7", *BOARDS[:3])), AT + 30)
    assert less.gpus == BOARDS[:3]


def test_a_job_whose_boards_all_fall_silent_goes_on() -> None:
    book = JobBook()
    book.update(holdings(held("slurm:7", *BOARDS)), AT, heard=frozenset(BOARDS))
    assert not book.update({}, AT + 60, heard=frozenset())
    assert not book.update(holdings(held("slurm:7", *BOARDS)), AT + 360, heard=frozenset(BOARDS)), "as before"
    assert not book.update({}, AT + 420, heard=frozenset())
    (ended,) = book.update({}, AT + 480, heard=frozenset(BOARDS[:1]))
    assert (ended.since, ended.until) == (AT, AT + 420), "a board of it is heard without it"


def test_a_job_that_nobody_has_heard_for_long_ended_when_it_fell_silent() -> None:
    book = JobBook()
    book.update(holdings(held("slurm:7", *BOARDS)), AT, heard=frozenset(BOARDS))
    assert not book.update({}, AT + 60, heard=frozenset())
    (ended,) = book.update({}, AT + 60 + UNHEARD_JOB_S, heard=frozenset())
    assert ended.until == AT + 60
    assert not book.update({}, AT + 120 + UNHEARD_JOB_S, heard=frozenset())
