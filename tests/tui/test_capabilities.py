"""What a terminal can show, from its environment."""

from __future__ import annotations

import subprocess
import sys

import pytest

from coldaisle.tui.capabilities import Colours, capabilities


@pytest.mark.parametrize(
    ("environ", "utf8"),
    [
        ({"LANG": "en_US.UTF-8"}, True),
        ({"LANG": "de_DE.utf8@euro"}, True),
        ({"LANG": "C.UTF-8", "LC_ALL": ""}, True),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "C"}, False),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, True),
        ({"LANG": "en_US.ISO-8859-1"}, False),
        ({"LANG": "POSIX"}, False),
        ({}, False),
    ],
)
def test_the_locale_tells_the_characters(environ: dict[str, str], utf8: bool) -> None:
    assert capabilities(environ).utf8 is utf8


@pytest.mark.parametrize(
    ("environ", "colours"),
    [
        ({"TERM": "xterm-256color"}, Colours.XTERM),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, Colours.TRUE),
        ({"TERM": "xterm-direct"}, Colours.TRUE),
        ({"TERM": "tmux-256color", "TMUX": "/tmp/tmux,1,0", "COLORTERM": "truecolor"}, Colours.XTERM),
        ({"TERM": "screen", "TMUX": "/tmp/tmux,1,0"}, Colours.XTERM),
        ({"TERM": "screen", "STY": "1.pts"}, Colours.SIXTEEN),
        ({"TERM": "linux"}, Colours.SIXTEEN),
        ({"TERM": "xterm"}, Colours.SIXTEEN),
        ({"TERM": "xterm-16color", "COLORTERM": "truecolor"}, Colours.SIXTEEN),
        ({"TERM": "screen-16color", "TMUX": "/tmp/tmux,1,0"}, Colours.SIXTEEN),
        ({"TERM": "xterm-mono"}, Colours.NONE),
        ({"TERM": "xterm-kitty"}, Colours.XTERM),
        ({"TERM": "vt220"}, Colours.NONE),
        ({"TERM": "dumb"}, Colours.NONE),
        ({}, Colours.NONE),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor", "NO_COLOR": "1"}, Colours.NONE),
    ],
)
def test_the_environment_tells_the_colours(environ: dict[str, str], colours: Colours) -> None:
    assert capabilities(environ).colours is colours


@pytest.mark.parametrize("colours", Colours)
def test_textual_knows_every_colour_system(colours: Colours) -> None:
    from rich.console import Console

    Console(color_system=colours.textual)  # type: ignore[arg-type]


def test_asking_loads_nothing() -> None:
    code = "import sys; from coldaisle.tui.capabilities import capabilities; print('textual' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
