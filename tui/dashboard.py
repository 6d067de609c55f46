"""The dashboard put together: settings, the feed made from them, the app."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from coldaisle.sources.configured import NO_SECRETS, sources_from
from coldaisle.sources.errors import ConfigError
from coldaisle.tui.capabilities import Colours, capabilities
from coldaisle.tui.feed import MonitorFeed

if TYPE_CHECKING:
    from coldaisle.analyzers.monitor import MonitorSettings
    from coldaisle.sources.config import Settings
    from coldaisle.sources.instants import Instant
    from coldaisle.sources.ssh_login import Secrets
    from coldaisle.tui.app import ColdaisleApp

DEFAULT_INTERVAL_S = 2.0


def run_dashboard(
    settings: Settings,
    secrets: Mapping[str, Secrets] = NO_SECRETS,
    at: Instant | None = None,
    focus: str = "",
) -> int:
    """Show the dashboard, live or ``at`` an instant, until it is left; the exit status.

    ``focus``: what is opened as soon as it is known; see :mod:`.focus`.

    ``secrets`` are from preflight.ask_first.
    """
    app = make_app(settings, secrets, at, focus)
    app.run(mouse=settings.screen.mouse)
    return app.return_code or 0


def make_app(
    settings: Settings,
    secrets: Mapping[str, Secrets] = NO_SECRETS,
    at: Instant | None = None,
    focus: str = "",
) -> ColdaisleApp:
    """The app with its feed; nothing is started, and nothing heavier than Textual imported."""
    terminal = capabilities(os.environ)
    os.environ.setdefault(
        "TEXTUAL_COLOR_SYSTEM", terminal.colours.textual
    )  # Textual reads it as it is imported
    from coldaisle.tui.app import ColdaisleApp
    from coldaisle.tui.cells import METRICS, is_shown

    screen = settings.screen
    if screen.metric and not is_shown(screen.metric):
        shown = ", ".join(metric.key for metric in METRICS)
        raise ConfigError(
            f"metric: cells do not show {screen.metric}", f"they show {shown}; Enter shows the others"
        )
    app = ColdaisleApp(
        MonitorFeed(lambda clock: sources_from(settings, clock, secrets), lambda: monitor_settings(settings)),
        name=settings.name,
        theme_name=screen.theme or "",
        metric=screen.metric or "",
        ascii_only=not terminal.utf8 if screen.ascii is None else screen.ascii,
        no_colour=terminal.colours is Colours.NONE,
        serving=settings.serving,
        at=at,
        focus=focus,
        bell=screen.bell,
    )
    app.bytes_per_second = screen.bytes_per_second
    return app


def monitor_settings(settings: Settings) -> MonitorSettings:
    """What the monitor is told; imports it."""
    from coldaisle.analyzers.monitor import MonitorSettings
    from coldaisle.sources.history import Limits
    from coldaisle.sources.settings import SlurmSettings

    # a scheduler is asked seldom; what it tells is shown at once, and how long jobs run and wait goes on
    intervals = [
        source.interval
        for source in settings.sources
        if source.interval is not None and not isinstance(source, SlurmSettings)
    ]
    fastest = min(intervals, default=DEFAULT_INTERVAL_S)
    return MonitorSettings(
        name=settings.name,
        interval=settings.screen.interval or fastest,
        racks=settings.rack_rules(),
        aliases=settings.nodes.names(),
        limits=Limits(full_s=settings.history.minutes * 60, full_bytes=int(settings.history.memory)),
        detectors=settings.detectors,
        advice=settings.advice,
    )
