"""The HTML page, its figures, and the console's summary."""

import functools
import io
import re

import matplotlib as mpl
import numpy as np
import pytest
import sample
from helpers import GOLDEN, Page, golden
from rich.console import Console

from mfn_compile.report import figures, tables
from mfn_compile.report.html import render_html
from mfn_compile.report.summary import evaluation_lines, summary, summary_text
from mfn_compile.report.verdict import DEMO

RESULTS = [sample.complete, sample.demo, sample.minimal, sample.on_board]


@functools.cache
def rendered(make):
    return render_html(make())


def test_text_is_the_golden_one():
    text = Page(rendered(sample.complete)).text
    assert text == golden(GOLDEN / "report.txt", text)


def test_text_of_a_board_is_the_golden_one():
    text = Page(rendered(sample.on_board)).text
    assert text == golden(GOLDEN / "device.txt", text)


def test_figures_of_a_board_are_left_out_where_nothing_is_known():
    result = sample.on_board()
    html = rendered(sample.on_board)
    assert html.count("Roofline of the kernels") == 1
    assert html.count("Cost of the most expensive kernels") == 1
    blind = tuple(
        row.model_copy(update={"bytes_moved": None, "macs_per_cycle": None, "of_peak": None})
        for row in result.device.kernels
    )
    device = result.device.model_copy(update={"kernels": blind})
    html = render_html(result.model_copy(update={"device": device}))
    assert "Roofline of the kernels" not in html
    assert "Cost of the most expensive kernels" in html


@pytest.mark.parametrize("make", RESULTS)
def test_page_is_whole_and_needs_nothing_else(make):
    html = rendered(make)
    page = Page(html)
    assert html.startswith("<!DOCTYPE html>")
    assert len(page.ids) == len(set(page.ids))
    assert not {"script", "link", "img", "iframe", "object"} & page.tags
    references = [v for _, name, v in page.attributes if name in ("src", "href", "xlink:href")]
    assert all(value.startswith("#") for value in references)
    assert "@import" not in html
    for address in re.findall(r"https?://[^\"'\s<>]+", html):
        assert address in ("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink")
    assert all(target in page.ids for target in re.findall(r"url\(#([^)]+)\)", html))
    assert not re.search(r"#0[1-6]0[1-6]0[1-6]", html), "a stand-in colour was left"
    assert "mathdefault" not in html, "a label is mathematics"


def test_same_result_same_page():
    assert render_html(sample.complete()) == rendered(sample.complete)


def test_text_of_others_is_escaped():
    evil = "<script>alert(1)</script>&{{ 7 * 7 }}$x$"
    result = sample.complete()
    layers = (result.quantization.layers[0].model_copy(update={"name": evil}),)
    result = result.model_copy(
        update={
            "checkpoint": result.checkpoint.model_copy(update={"name": evil}),
            "evaluation": result.evaluation.model_copy(update={"dataset": evil}),
            "quantization": result.quantization.model_copy(update={"layers": layers}),
            "notes": (evil,),
        }
    )
    html = render_html(result)
    assert "<script" not in html
    assert "script" not in Page(html).tags
    assert Page(html).text.count(evil) >= 4
    assert "{{ 7 * 7 }}" in summary_text(result).replace("\n", " ")


def test_demo_is_called_what_it_is():
    page = Page(rendered(sample.demo)).text
    assert page.count(DEMO) >= 3
    assert DEMO in summary_text(sample.demo()).replace("\n", " ")
    assert DEMO not in Page(rendered(sample.complete)).text


def test_summary_is_the_golden_one():
    text = summary_text(sample.complete())
    assert text == golden(GOLDEN / "summary.txt", text)


def test_summary_and_page_show_the_same_numbers():
    page = Page(rendered(sample.complete)).text.replace("\u00a0", " ")
    text = summary_text(sample.complete())
    for row in tables.drift(sample.evaluation()):
        for cell in (row.label, row.fp32, row.int8, row.difference):
            assert cell in page
            assert cell in text


def test_an_evaluation_alone_has_lines_of_its_own():
    text = evaluation_lines(sample.evaluation())
    for part in ("Drift on LFW", "99.20 % ± 0.41", "p = 0.727", "0.98187"):
        assert part in text
    assert DEMO in evaluation_lines(sample.demo().evaluation)


def test_summary_takes_names_for_text_not_for_markup():
    result = sample.minimal()
    recipe = result.quantization.model_copy(update={"recipe": "[bold]mine[/]"})
    result = result.model_copy(update={"quantization": recipe, "notes": ("[link=x]y",)})
    text = summary_text(result)
    assert "[bold]mine[/]" in text
    assert "[link=x]y" in text


@pytest.mark.parametrize("width", [40, 200])
def test_summary_prints_on_any_terminal(width):
    console = Console(file=io.StringIO(), width=width, force_terminal=True)
    console.print(summary(sample.complete()))
    lines = Console(file=io.StringIO(), width=width).render_lines(summary(sample.complete()))
    assert max(sum(len(part.text) for part in line) for line in lines) <= width


def test_figures_leave_no_trace():
    before = dict(mpl.rcParams)
    figures.roc(sample.evaluation())
    figures.cosine_histogram(sample.evaluation().cosine)
    figures.layer_bars(sample.complete().quantization.layers)
    assert dict(mpl.rcParams) == before


def test_figures_say_nothing_about_when_and_by_what():
    svg = figures.roc(sample.evaluation())
    assert svg.startswith("<svg role=")
    assert "metadata" not in svg
    assert "matplotlib.org" not in svg


def test_roc_reaches_as_low_as_the_pairs_allow():
    assert "1e-6" in figures.roc(sample.evaluation())
    few = figures.roc(sample.evaluation().model_copy(update={"all_pairs": None}))
    assert "1e-4" in few
    assert "1e-5" not in few


def test_roc_of_a_handful_of_pairs_has_an_axis():
    few = sample.evaluation().model_copy(update={"all_pairs": None, "pairs": 2})
    assert "1e-1" in figures.roc(few)


def test_histogram_with_nothing_or_one_bin():
    stats = sample.evaluation().cosine
    empty = stats.model_copy(update={"histogram": (0,) * len(stats.histogram)})
    assert "<svg" in figures.cosine_histogram(empty)
    one = stats.model_copy(update={"histogram": (3,), "histogram_edges": (0.99, 1.0)})
    assert "<svg" in figures.cosine_histogram(one)


def test_layers_below_zero_decibels_and_marks():
    layers = sample.complete().quantization.layers
    bad = layers[3].model_copy(update={"sqnr_db": -4.0})
    svg = figures.layer_bars((*layers[:3], bad, *layers[4:]))
    assert len(re.findall(r"fill: var\(--mark", svg)) >= tables.HIGHLIGHTED
    one = figures.layer_bars(layers[:1])
    assert np.char.count(one, "<svg") == 1
