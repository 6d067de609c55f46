"""Rules of thumb about boards, heat and racks, and what is true of them for the part at hand. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from coldaisle.analyzers.sizing.catalogue import nodes
from coldaisle.analyzers.sizing.power import node_power
from coldaisle.analyzers.sizing.sheet import SizingError, Verdict
from coldaisle.analyzers.sizing.site import Machine
from coldaisle.sources.parts.catalogue import Part

_RACKS = (30e3, 70e3)
"""W that are quoted."""


def place_verdicts(built: Machine) -> Iterator[Verdict]:
    """Those that concern a part in its nodes, whatever it does."""
    yield throttling_rule()
    if (racks := rack_rule(built)) is not None:
        yield racks
    if built.part.id.startswith("h200"):
        yield board_power_rule(built.part)


def throttling_rule() -> Verdict:
    """10 to 30 % within minutes."""
    return Verdict(
        "throttling costs 10 to 30 % within minutes",
        "unsupported in general: clocks fall steadily as a board warms, and 5 % or more between the GPUs of a node are usual; none is "
        "reckoned here. Measure it: SM clock over its highest under load, and the reasons that the driver gives",
    )


def rack_rule(built: Machine) -> Verdict | None:
    """30 to 70 kW; None: nobody publishes what the node draws."""
    try:
        plate = node_power(built.part, built.node_gpus, built.node).nameplate.value
    except SizingError:
        return None
    low, high = (math.floor(rack / plate) for rack in _RACKS)
    many = (
        f"{low} to {high} such nodes"
        if low
        else f"at most {high} such nodes"
        if high
        else "less than one such node"
    )
    dense = (nodes()["gb200_nvl72"], nodes()["gb300_nvl72"])
    told = " and ".join(f"{node.power_w / 1e3:.0f} kW ({node.system})" for node in dense)
    return Verdict(
        "a rack takes 30 to 70 kW",
        f"that is {many} here, of {plate / 1e3:.3g} kW by name plate; it is exceeded by now: {told}",
    )


def board_power_rule(part: Part) -> Verdict:
    """700 W of an H200."""
    is_sxm = part.form.upper().startswith("SXM")
    said = "right of the SXM board" if is_sxm else "of the SXM board, not of this one"
    return Verdict(
        "an H200 draws up to 700 W, as much as seven desktops",
        f"{said}: {part.product} has {part.power_w:.0f} W; the desktops are colour, and cooling and the rest of its node come on top",
    )
