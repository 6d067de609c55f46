"""An audit as one HTML file that needs nothing beside it: styles and charts inside, no script, nothing asked of anybody.

Jinja2 escapes whatever is not our own chart; a policy in the page forbids what an escape might have missed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from coldaisle.analyzers.report import charts, text, words
from coldaisle.sources.errors import ColdaisleError


def as_html(made: Mapping[str, Any]) -> str:
    """Of an audit as :mod:`.document` has it. Raises ColdaisleError where Jinja2 is not installed."""
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError:
        remedy = "pip install 'coldaisle[report]', or write .md, .json or .csv"
        raise ColdaisleError("an HTML report needs Jinja2, which is not installed", remedy) from None

    def drawn(chart: Callable[..., str]) -> Callable[..., Markup]:
        return lambda *given: Markup(chart(*given))

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {
        "name": words.name, "percent": words.percent, "count": words.count, "figure": words.figure, "saved": words.saved,
        "duration": words.duration, "recurred": words.recurred, "span": words.span, "drifted": text.drifted, "sentence": words.sentence,
        "metric": lambda value, key: words.value_of(key, value),
        "gauge": drawn(charts.gauge), "heat_map": drawn(charts.heat_map), "histogram": drawn(charts.histogram),
        "load": drawn(charts.load), "coverage": drawn(charts.coverage),
        "utilisations": drawn(charts.utilisations),
    }  # fmt: skip
    source = (files(__package__) / "page.html").read_text(encoding="utf-8")
    page: str = environment.from_string(source).render(
        made=made, points=list(words.points(made)), kinds=words.KINDS, refusals=list(words.refusals(made))
    )
    return page
