"""The page: well formed, whole in itself, and with everything on it."""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from foldmint_maintenance.datasets.records import Record
from foldmint_maintenance.evaluation import plots, report
from foldmint_maintenance.evaluation.evaluate import Details, Evaluation, evaluate
from foldmint_maintenance.evaluation.reconstruction import ChainFigures, Trace
from foldmint_tokenizer.model import Model

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Reader(HTMLParser):
    """Checks that elements nest, and keeps what they are, their attributes and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def result(decoding_model: Model, records: list[Record]) -> Evaluation:
    return evaluate(decoding_model, records)


def test_the_page_is_well_formed_and_needs_no_other_file(result: Evaluation) -> None:
    page = report.page(result)
    reader = Reader(page)
    assert page.startswith("<!DOCTYPE html>")
    assert reader.names.count("html") == reader.names.count("title") == reader.names.count("h1") == 1
    assert not {"script", "link", "img", "image", "iframe", "object"} & set(reader.names)
    for name, value in reader.attributes:
        if name in ("src", "href", "xlink:href"):
            assert value.startswith("#")
    assert "@import" not in page
    assert re.findall(r"url\((?!#)", page) == []
    # Namespaces are names, and nothing is fetched from them.
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", page)


def test_every_reference_finds_its_one_element(result: Evaluation) -> None:
    reader = Reader(report.page(result))
    ids = [value for name, value in reader.attributes if name == "id"]
    assert len(ids) == len(set(ids)) > 6
    used = {value.removeprefix("#") for name, value in reader.attributes if name.endswith("href")}
    used |= {place for _, value in reader.attributes for place in re.findall(r"url\(#([^)]+)\)", value)}
    assert used
    assert used <= set(ids)


def test_plots_are_inline_and_take_the_colors_of_the_page(result: Evaluation) -> None:
    page = report.page(result)
    svgs = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    # Usage, figures by length, RMSD, and three superpositions.
    assert len(svgs) == 6
    for svg in svgs:
        assert ET.fromstring(svg).tag.endswith("svg")  # noqa: S314 (our own)
    assert "prefers-color-scheme: dark" in page
    assert "var(--guess)" in svgs[0]
    assert all("var(--truth)" in svg for svg in svgs[3:])
    assert not {"#010203", "#040506", "#070809", "#000000"} & set(re.findall(r"#[0-9a-f]{6}", page))


def test_the_page_tells_the_figures_the_notes_and_dead_codes(result: Evaluation) -> None:
    assert result.details is not None
    assert result.reconstruction is not None
    text = Reader(report.page(result)).text
    for note in result.notes:
        assert note in text
    assert f"{result.perplexity:.4g}" in text
    rmsd = result.reconstruction.all.backbone_rmsd
    assert f"{rmsd.median:.3g} [{rmsd.lower_quartile:.3g}, {rmsd.upper_quartile:.3g}]" in text
    for name in ("backbone RMSD, Å", "TM-score", "lDDT-CA", "pLDDT", "pTM", "1 to 64", "more than 1024"):
        assert name in text
    counts = np.ones(300, np.int64)
    counts[[7, 250]] = 0
    text = Reader(report.page(replace(result, details=result.details._replace(counts=counts)))).text
    assert "2 of 300 codes are dead" in text
    assert "7, 250" in text
    counts[:150] = 0
    text = Reader(report.page(replace(result, details=result.details._replace(counts=counts)))).text
    assert "98, 99 and 51 more" in text


def test_the_same_result_makes_the_same_page(result: Evaluation) -> None:
    assert report.page(result) == report.page(result)


def test_names_are_no_markup(result: Evaluation) -> None:
    assert result.details is not None
    traces = [trace._replace(figures=trace.figures._replace(id="<i>&amp;")) for trace in result.details.traces]
    page = report.page(
        replace(result, model="<b>&amp;", notes=("<u>",), details=result.details._replace(traces=traces))
    )
    reader = Reader(page)
    assert not {"b", "i", "u"} & set(reader.names)
    assert "<b>&amp;, codebook 000001" in reader.text
    assert "<i>&amp;" in reader.text
    assert "<u>" in reader.text


def test_without_a_decoder_the_codes_are_left(model: Model, records: list[Record]) -> None:
    page = report.page(evaluate(model, records))
    reader = Reader(page)
    assert reader.names.count("svg") == 1
    assert "Reconstruction" not in reader.text
    assert "no decoder" in reader.text


def test_a_set_with_nothing_decoded_has_a_page(result: Evaluation) -> None:
    assert result.details is not None
    page = report.page(replace(result, details=Details(result.details.counts, [], [])))
    assert Reader(page).names.count("svg") == 1
    with pytest.raises(ValueError, match="details"):
        report.page(replace(result, details=None))


def _trace(name: str, tm: float) -> Trace:
    points = np.random.default_rng(0).normal(0, 9, (20, 3)).astype(np.float32)
    return Trace(ChainFigures(name, 20, 20, 1, tm, 0.5, 0.5), points, points)


def test_worst_median_and_best_are_chosen_by_tm_score() -> None:
    traces = [_trace(name, tm) for name, tm in [("a", 0.5), ("b", 0.9), ("c", 0.1), ("d", 0.6), ("e", 0.7)]]
    chosen = [(name, trace.figures.id) for name, trace in report.chosen(traces)]
    assert chosen == [("worst", "c"), ("median", "d"), ("best", "b")]
    assert len(report.chosen(traces[:1])) == 1


def test_a_superposition_shows_the_plane_in_which_the_chain_extends_most() -> None:
    """Points along y and z, with nothing in x: the drawing keeps all of their distances."""
    points = np.zeros((4, 3), np.float32)
    points[:, 1] = [0, 30, 30, 0]
    points[:, 2] = [0, 0, 10, 10]
    trace = Trace(ChainFigures("a", 4, 4, 0, 1, 1, 1), points, points)
    path = re.search(r'd="(M [^"]*)" clip-path', plots.superposition("best", trace))
    assert path is not None
    drawn = np.array(re.findall(r"[ML] (\S+) (\S+)", path[1]), float)
    assert len(drawn) == 4
    steps = np.linalg.norm(np.diff(drawn, axis=0), axis=1)
    assert steps / steps[0] == pytest.approx([1, 1 / 3, 1], rel=1e-3)


def test_of_very_many_chains_some_are_shown(result: Evaluation) -> None:
    assert result.details is not None
    chains = result.details.chains * 1100
    assert 2000 < len(plots.thinned(chains)) <= 3000
    page = report.page(replace(result, details=result.details._replace(chains=chains)))
    assert "2,200 of 6,600 chains are shown" in page
    assert len(plots.thinned(chains[:3000])) == 3000


def test_matplotlib_is_not_loaded_before_a_page_is_asked_for() -> None:
    code = (
        "import sys, foldmint_maintenance.evaluation.report as _;"
        "sys.exit('matplotlib' in sys.modules or 'tmtools' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
