"""report.html: one offline file, rendered from a `Result` and nothing else."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mfn_compile.report import (
    device,
    device_figures,
    explained,
    figures,
    firmware,
    knobs,
    tables,
)
from mfn_compile.report import format as fmt
from mfn_compile.report.verdict import is_demo, tiles, verdict
from mfn_compile.results import Result

TEMPLATE = "report.html.j2"


def render_html(result: Result) -> str:
    """The text of report.html."""
    environment = Environment(
        loader=PackageLoader("mfn_compile.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    layers = result.quantization.layers
    return environment.get_template(TEMPLATE).render(
        result=result,
        verdict=verdict(result),
        tiles=tiles(result),
        demo=is_demo(result),
        tables=tables,
        firmware=firmware,
        device=device,
        explained=explained,
        knobs=knobs,
        fmt=fmt,
        layers=tables.layers(layers),
        lowest=tables.lowest(layers),
        figures=_figures(result),
    )


def _figures(result: Result) -> dict[str, Markup]:
    # Safe to mark: the figures hold numbers and words of our own, no text of the result.
    found = {}
    if result.evaluation is not None:
        found["roc"] = Markup(figures.roc(result.evaluation))
        found["cosine"] = Markup(figures.cosine_histogram(result.evaluation.cosine))
    if result.quantization.layers:
        found["layers"] = Markup(figures.layer_bars(result.quantization.layers))
    if result.device is not None and result.device.kernels:
        found["kernels"] = Markup(device_figures.kernel_bars(result.device))
        if device_figures.has_roofline(result.device):
            found["roofline"] = Markup(device_figures.roofline(result.device))
    return found
