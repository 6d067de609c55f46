"""``python -m benchmarks.quality [--split tuning|test] [--quick] [--polls 5,30] [--scenarios NAME,...] [--mistakes]``.

The tuning split is what thresholds are chosen on (H100 and A100); the test split has seeds and boards of its own (H200 and
B200 beside those) and is run only with thresholds that are frozen. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

from benchmarks.quality.healthy import healthy_hours
from benchmarks.quality.scoring import Tally, score
from benchmarks.quality.tables import by_condition, by_setting, healthy_table, summary
from benchmarks.quality.watching import watch
from coldaisle.sources.simulator.scenarios import SCENARIOS, Observed, world

TUNING_PARTS, TEST_PARTS = ("H100", "A100"), ("H100", "A100", "H200", "B200")
TUNING_SEEDS: tuple[int, ...] = (101, 102, 103)
TEST_SEEDS: tuple[int, ...] = (9401, 9402, 9403, 9404)


@dataclass(frozen=True, slots=True)
class Setting:
    """How a world is looked at."""

    name: str
    observed: Observed
    missing: tuple[str, ...] = ()


FULL = Observed(poll=5.0)
SETTINGS = (
    Setting("1 s", replace(FULL, poll=1.0)),
    Setting("5 s", FULL),
    Setting("15 s", replace(FULL, poll=15.0)),
    Setting("30 s", replace(FULL, poll=30.0)),
    Setting("5 s, no profiling", replace(FULL, fields="nvml"), ("profiling",)),
    Setting(
        "15 s, dcgm-exporter's default fields",
        replace(FULL, poll=15.0, fields="default"),
        ("profiling", "default"),
    ),
    Setting("5 s, no host metrics", replace(FULL, host=False), ("host",)),
    Setting("5 s, 10 % drops", replace(FULL, drops=0.10)),
)


@dataclass(frozen=True, slots=True)
class Work:
    """One world under one setting: what a process does at a time."""

    scenarios: tuple[str, ...]
    seed: int
    parts: tuple[str, ...]
    setting: Setting


def run(work: Work) -> tuple[str, dict[str, Tally], float]:
    """(setting, tallies by condition, GPU-hours) of one world."""
    made = world(work.scenarios, work.seed, parts=work.parts)
    poll = work.setting.observed.poll
    watched = watch(made.items(work.setting.observed, work.seed), poll)
    return work.setting.name, score(watched, made.labels, poll, work.setting.missing), watched.gpu_hours


def works(args: argparse.Namespace) -> Iterator[Work]:
    """Everything that is asked for. Long scenarios are in worlds of their own, so that short ones need not wait for them."""
    seeds, parts = (TEST_SEEDS, TEST_PARTS) if args.split == "test" else (TUNING_SEEDS, TUNING_PARTS)
    if args.seeds:
        seeds = tuple(map(int, args.seeds.split(",")))
    names = args.scenarios.split(",") if args.scenarios else list(SCENARIOS)
    by_length = defaultdict(list)
    for name in names:
        by_length[SCENARIOS[name].minutes].append(name)
    wanted = {f"{poll} s" for poll in args.polls.split(",")} if args.polls else None
    for setting in SETTINGS:
        if (wanted is None or setting.name in wanted) and args.setting in setting.name:
            for seed in seeds[:1] if args.quick else seeds:
                for group in by_length.values():
                    yield Work(tuple(group), seed, parts, setting)


def main(argv: Sequence[str]) -> int:
    """Run and print; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality")
    parser.add_argument("--split", choices=("tuning", "test"), default="tuning")
    parser.add_argument("--quick", action="store_true", help="one seed, no healthy hours, no incidents")
    parser.add_argument(
        "--seeds", default="", help="others to tune on: 201,202; no healthy hours, no incidents"
    )
    parser.add_argument("--polls", default="", help="only these, in seconds: 5,30")
    parser.add_argument(
        "--setting",
        default="",
        help="only ways of looking with this in their name (default, drops); no healthy hours, no incidents",
    )
    parser.add_argument("--scenarios", default="", help="only these, by name")
    parser.add_argument("--mistakes", action="store_true", help="say what was missed and what was false")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(argv)
    if args.seeds and args.split == "test":
        parser.error("the test split has seeds of its own")
    if unknown := set(filter(None, args.scenarios.split(","))) - set(SCENARIOS):
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(sorted(SCENARIOS))}")
    is_whole = not (args.quick or args.scenarios or args.seeds or args.setting)
    began = time.monotonic()
    settings: dict[str, dict[str, Tally]] = defaultdict(lambda: defaultdict(Tally))
    hours = 0.0
    with ProcessPoolExecutor(args.workers) as pool:
        for setting, tallies, gpu_hours in pool.map(run, works(args)):
            hours += gpu_hours
            for condition, tally in tallies.items():
                settings[setting][condition].add(tally)
            print(f"{time.monotonic() - began:6.0f} s  {setting}", file=sys.stderr)
        print(
            f"{time.strftime('%Y-%m-%d')}: `python -m benchmarks.quality {' '.join(argv)}`, {args.split} split,"
        )
        print(f"{hours:,.0f} GPU-hours of scenarios.\n")
        print(by_condition(settings, "5 s"))
        print(by_setting(settings))
        print(summary(settings))
        if is_whole:
            print(healthy_table(pool.map(healthy_hours, range(args.workers * 4))))
    if is_whole:
        from benchmarks.quality.gwdg import replay_rows

        print(replay_rows(os.environ.get("COLDAISLE_TRACES")))
    if args.mistakes:
        for setting, of_condition in settings.items():
            for condition, tally in of_condition.items():
                for mistake in tally.mistakes:
                    print(f"{setting:36} {condition:26} {mistake}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
