"""The lab's own servers scrape, remember and end."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from lab.pages import Pages, dcgm_page, served
from lab.prometheus import Rule, Scraped, Server, openmetrics, prometheus, victoria_metrics

START = 1_700_000_000
HISTORY = openmetrics(
    "DCGM_FI_DEV_GPU_UTIL", {'gpu="0",Hostname="n01"': [(START + 60 * turn, turn) for turn in range(10)]}
)
STARTERS = [prometheus, victoria_metrics]


@pytest.mark.parametrize("start", STARTERS)
async def test_exporters_are_scraped(
    start: Callable[..., AbstractContextManager[Server]], tmp_path: Path
) -> None:
    async with served(Pages(dcgm_page("n01"))) as pages:
        with start(tmp_path, [Scraped([pages.target], labels={"cluster": "atlas"})]) as server:
            await server.until("up == 1")
            rows = await server.until("DCGM_FI_DEV_GPU_TEMP", 8)
            assert {(labels["Hostname"], labels["cluster"]) for labels, _ in rows} == {("n01", "atlas")}
            process = server.process
    assert process is not None
    assert process.poll() is not None


@pytest.mark.parametrize("start", STARTERS)
def test_history_is_remembered(start: Callable[..., AbstractContextManager[Server]], tmp_path: Path) -> None:
    with start(tmp_path, history=HISTORY, prefix="/under/here") as server:
        assert server.rows("DCGM_FI_DEV_GPU_UTIL", at=START + 240.0)[0][1] == 4.0
        assert server.url.endswith("/under/here")


async def test_rules_fire(tmp_path: Path) -> None:
    with prometheus(tmp_path, rules=[Rule("AlwaysOn", "vector(1)", {"severity": "page"})]) as server:
        rows = await server.until('ALERTS{alertstate="firing"}')
        assert rows[0][0]["severity"] == "page"


def test_a_killed_server_comes_back_at_its_port(tmp_path: Path) -> None:
    with prometheus(tmp_path, history=HISTORY) as server:
        url = server.url
        server.kill()
        with pytest.raises(OSError):
            server.rows("up")
        server.start()
        assert server.url == url
        assert server.rows("DCGM_FI_DEV_GPU_UTIL", at=START + 60.0)
    assert time.time() > START
