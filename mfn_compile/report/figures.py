"""The figures of report.html, as SVG text that is the same on every run.

Colours are CSS variables of the page, so that a figure follows its light or dark look. Labels are
our own words only: matplotlib would read a `$` in a layer's name as mathematics.
"""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from mfn_compile.report import tables
from mfn_compile.results import CosineStats, Evaluation, LayerError, Roc

# Stand-ins that matplotlib accepts, and the page's variable that each becomes.
INK, MUTED, GRID, FP32, INT8, MARK = (
    "#010101",
    "#020202",
    "#030303",
    "#040404",
    "#050505",
    "#060606",
)
VARIABLES = {
    INK: "var(--ink, #1b1f24)",
    MUTED: "var(--muted, #59636e)",
    GRID: "var(--line, #d1d9e0)",
    FP32: "var(--fp32, #6e7781)",
    INT8: "var(--int8, #0a5fbf)",
    MARK: "var(--mark, #bc4c00)",
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
    "svg.image_inline": True,
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "path.simplify": False,
}
INCHES = (4.9, 3.3)  # text of 10 points is still readable when a phone shrinks it
NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def roc(evaluation: Evaluation) -> str:
    """ROC of both models over a logarithmic FAR; over all pairs where they were taken."""
    every = evaluation.all_pairs
    fp32, int8 = (
        (every.fp32_roc, every.int8_roc) if every else (evaluation.fp32.roc, evaluation.int8.roc)
    )
    lowest = _lowest_far(every.impostor if every else evaluation.pairs // 2)
    with mpl.rc_context({**STYLE, "svg.hashsalt": "roc"}):
        figure, axes = canvas()
        for curve, colour, dashes, name in (
            (fp32, FP32, (None, None), "fp32"),
            (int8, INT8, (4, 2), "INT8"),
        ):
            far, tar = _visible(curve, lowest)
            axes.plot(far, tar, color=colour, dashes=dashes, linewidth=1.8, label=name)
        axes.set_xscale("log")
        axes.set_xlim(lowest, 1)
        exponents = range(round(np.log10(lowest)), 1)
        axes.set_xticks([10.0**n for n in exponents], [f"1e{n}" if n else "1" for n in exponents])
        axes.minorticks_off()
        axes.set_xlabel("False accept rate")
        axes.set_ylabel("True accept rate, %")
        axes.grid(True)
        axes.legend(frameon=False, loc="lower right")
        return svg(figure, "roc", "ROC curves of the fp32 and the INT8 network")


def _lowest_far(impostors: int) -> float:
    # Below one false accept the curve says nothing.
    return float(10.0 ** np.clip(np.floor(-np.log10(max(impostors, 10))), -6, -1))


def _visible(curve: Roc, lowest: float) -> tuple[Any, Any]:
    far = np.clip(np.asarray(curve.far, float), lowest, 1)
    return far, 100 * np.asarray(curve.tar, float)


def cosine_histogram(stats: CosineStats) -> str:
    """How many images have which embedding cosine, INT8 against fp32."""
    counts = np.asarray(stats.histogram, float)
    edges = np.asarray(stats.histogram_edges, float)
    with mpl.rc_context({**STYLE, "svg.hashsalt": "cosine"}):
        figure, axes = canvas()
        axes.stairs(counts, edges, fill=True, color=INT8)
        axes.axvline(stats.mean, color=INK, linewidth=1.2, label="mean")
        axes.axvline(stats.p01, color=MARK, linewidth=1.2, dashes=(4, 2), label="1st percentile")
        filled = np.flatnonzero(counts)
        if len(filled):
            axes.set_xlim(edges[filled[0]], edges[filled[-1] + 1])
        axes.set_ylim(bottom=0)
        axes.locator_params(axis="x", nbins=6)
        axes.set_xlabel("Cosine of INT8 and fp32 embedding")
        axes.set_ylabel("Images")
        axes.grid(True, axis="y")
        axes.legend(frameon=False, loc="upper left")
        return svg(figure, "cosine", "Histogram of the cosine of INT8 and fp32 embeddings")


def layer_bars(layers: tuple[LayerError, ...]) -> str:
    """Signal-to-noise ratio of every layer, in the order of the network."""
    marked = {row.number - 1 for row in tables.lowest(layers, tables.HIGHLIGHTED)}
    values = [layer.sqnr_db for layer in layers]
    colours = [MARK if i in marked else INT8 for i in range(len(layers))]
    with mpl.rc_context({**STYLE, "svg.hashsalt": "layers"}):
        figure, axes = canvas(width=1.9)
        axes.bar(range(1, len(layers) + 1), values, width=0.8, color=colours)
        for i in sorted(marked):
            above = max(values[i], 0)
            axes.annotate(
                str(i + 1),
                (i + 1, above),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                color=MARK,
            )
        axes.set_xlim(0.3, len(layers) + 0.7)
        axes.set_xlabel("Layer, by its number in the table")
        axes.set_ylabel("Signal to noise, dB")
        axes.grid(True, axis="y")
        return svg(figure, "layers", "Signal-to-quantization-noise ratio of every layer")


def canvas(width: float = 1.0) -> tuple[Figure, Any]:
    """An empty figure, `width` columns of the page wide, and its axes."""
    # No pyplot: it keeps every figure alive and would pick a screen's backend.
    figure = Figure(figsize=(INCHES[0] * width, INCHES[1]), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def svg(figure: Figure, name: str, label: str) -> str:
    """The figure as SVG text whose ids begin with `name`; `label` is for screen readers."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata=NO_METADATA)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"\s*<!--.*?-->", "", text, flags=re.DOTALL)
    # One page holds several figures: their ids must not meet.
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    view = re.search(r'viewBox="[^"]+"', text)
    head = f'<svg role="img" aria-label="{label}" {view.group() if view else ""} '
    head += 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    text = head + text[text.index(">") + 1 :]
    for stand_in, variable in VARIABLES.items():
        text = text.replace(stand_in, variable)
    return text
