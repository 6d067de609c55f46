"""The words of scenarios: what is so (:class:`Label`), how it is looked at (:class:`Observed`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Label:
    """The ground truth of one episode."""

    scenario: str
    condition: str
    """A finding id, or empty: healthy work, or something that only looks like a condition."""
    lookalike_of: tuple[str, ...]
    """Finding ids that it could be mistaken for."""
    start: float
    """When the cause begins to act."""
    evident: float
    """When its effect could first be seen if one sampled without end."""
    end: float
    acts_until: float
    """When the cause ends: its effect may outlive it, as a queue does the load that made it."""
    samples: int = 0
    """How many in a row tell it from samples that get lost or stand still by chance; 0: the first one does."""
    gpus: tuple[str, ...] = ()
    """Of the cause: ``n03/5``."""
    nodes: tuple[str, ...] = ()
    racks: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()
    """Whose work is lost."""
    victims: tuple[str, ...] = ()
    """GPUs that suffer without being the cause."""
    loss: float = 0.0
    """Mean share of its jobs' work that is lost from ``evident`` until ``acts_until``: steps done, against the same world
    without the cause.

    Of a service: of the tokens that it would have generated for the same requests if cache, batch and prefill had room for all
    of them, the share that it did not generate (requests still wait, were given up, or were computed twice). NaN where the job
    ends of it: there is no share.
    """
    variant: str = ""
    is_weak: bool = False
    """It costs less than a tenth: it may be missed."""
    needs: tuple[str, ...] = ()
    """Groups of signals without which it cannot be told: ``profiling``, ``host``, ``default``."""

    def told_at(self, poll: float) -> float:
        """When samples so many seconds apart could tell it: its effect shows, and is no chance."""
        return max(self.evident, self.start + self.samples * poll)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of episode."""

    name: str
    help: str
    condition: str = ""
    lookalike_of: tuple[str, ...] = ()
    variant: str = ""
    minutes: float = 20.0
    """How long it takes to show."""
    nodes: int = 2
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Observed:
    """How a world is seen."""

    poll: float = 5.0
    """Seconds."""
    fields: str = "full"
    """``full``; ``nvml``: no profiling metrics; ``default``: what dcgm-exporter exports by itself, without the profiling ones."""
    host: bool = True
    """Whether node_exporter runs."""
    drops: float = 0.01
    """Share of samples that are lost."""
    noise: bool = True
    """Whether feeds stick, values blank and instants jitter."""
    jobs: bool = True
    """Whether a scheduler or a label tells whose GPUs they are."""
