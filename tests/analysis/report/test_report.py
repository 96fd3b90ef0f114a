"""The report of a comparison: whole, in parts, with hostile texts, and in a real browser."""

import base64
import copy
import csv
import io
import itertools
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from fmlm_cli.analysis.report import writing as report
from fmlm_cli.analysis.report.figures.drawing import DASHES, SERIES, colour, dash
from fmlm_cli.analysis.report.findings.whole import verdict
from fmlm_cli.analysis.report.parts import Part
from fmlm_cli.analysis.report.values import Estimate, Ratio, compact, decimals, probability, rounded_up, spell
from fmlm_cli.analysis.results.comparison import ComparisonResults, Measurements, NextStep, Verdict
from fmlm_cli.analysis.results.plain import as_json, from_json
from fmlm_cli.analysis.results.variance import IntervalResult
from tests.analysis.report.comparison import ARMS, interval, made_json, made_results

FIGURES = (
    "covariance",
    "ratios",
    "equal-compute",
    "coverage",
    "loss-curves",
    "final-loss",
    "tokens-to-reach",
    "downstream-citation_intent",
    "sweep",
    "best",
)
OF_PART = {
    "variance": FIGURES[:3],
    "coverage": FIGURES[3:4],
    "race": FIGURES[4:7],
    "downstream": FIGURES[7:8],
    "sweep": FIGURES[8:],
}

# ---------------------------------------------------------------- the whole report


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return made_json()


def write(root: Path, results: Mapping[str, Any]) -> list[Path]:
    """The report of what results.json holds."""
    return report.write_report(root, from_json(ComparisonResults, results))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, results: dict[str, Any]) -> Path:
    root = tmp_path_factory.mktemp("report")
    paths = write(root, results)
    assert paths[:2] == [root / "report.html", root / "report.md"]
    assert sorted(paths) == sorted(path for path in root.rglob("*") if path.is_file())
    return root


class Page(HTMLParser):
    """Checks that tags are balanced; collects ids, links, images and text."""

    VOID = ("meta", "link", "br", "img", "hr")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value or "" for key, value in attrs if key == "id"]
        self.links += [value or "" for key, value in attrs if key in ("href", "src", "data", "srcset")]
        assert not [key for key, _ in attrs if key.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def page_of(root: Path) -> Page:
    return Page((root / "report.html").read_text(encoding="utf-8"))


def test_every_figure_is_there_as_svg_and_png(written: Path) -> None:
    for name in FIGURES:
        assert (written / f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")
        ET.parse(written / f"figures/{name}.svg")
    assert len(list((written / "figures").iterdir())) == 2 * len(FIGURES)


def test_the_page_is_whole_and_needs_nothing_else(written: Path) -> None:
    page = page_of(written)
    assert len(page.ids) == len(set(page.ids))
    assert {"script", "iframe", "img", "image"}.isdisjoint(page.tags)
    for link in page.links:
        assert link.startswith("data:") or link[1:] in page.ids, link[:60]
    html = (written / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", html)
    assert "@import" not in html and html.count('<svg class="narrow"') == len(FIGURES)
    assert not re.findall(r"url\(#(.*?)\)", html) or set(re.findall(r"url\(#(.*?)\)", html)) <= set(page.ids)


def test_the_page_shows_arms_numbers_verdict_and_settings(written: Path, results: dict[str, Any]) -> None:
    page = page_of(written)
    for arm in results["arms"]:
        assert arm["label"] in page.text
    for name, own in results["race"]["final"].items():
        for value in own["values"].values():
            assert f"{value:.4f}" in page.text, name
    found = results["verdict"]
    for text in (found["headline"], found["cost"], *found["sentences"]):
        assert text in page.text
    shown = (
        "0.457 (0.441 to 0.473)",
        "1.08 (1.04 to 1.12)",
        "34 %",
        "100 rows of",
        "K = 7",
        "2 of 50 rows were left out",
    )
    for text in (*shown, results["command"], "segments: 7", "15,234,816", "all-MiniLM-L6-v2, 2 layers"):
        assert text in page.text, text


def test_the_page_can_be_read_aloud_and_gone_through_by_keys(written: Path) -> None:
    html = (written / "report.html").read_text(encoding="utf-8")
    assert html.startswith("<!DOCTYPE html>\n<html lang=") and re.search(r"<title>[^<]+</title>", html)
    levels = [int(level) for level in re.findall(r"<h(\d)[ >]", html)]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    figures = re.findall(r'<figure role="img" aria-label="([^"]+)"', html)
    assert len(figures) == html.count("<figure") == len(FIGURES)
    frames = re.findall(r'<div class="scroll" tabindex="0" role="region" aria-label="[^"]+"><table>', html)
    assert len(frames) == html.count("<table>")
    for row in re.findall(r"<tbody>.*?</tbody>", html, re.DOTALL):
        assert row.count("<tr>") == row.count('<th scope="row"')
    assert html.count("<th") == html.count("<th scope=") + html.count("<thead>")


def test_an_estimates_interval_stands_below_it(written: Path) -> None:
    html = (written / "report.html").read_text(encoding="utf-8")
    assert '0.457 <span class="ends">(0.441 to 0.473)</span></td>' in html


def test_the_next_step_is_on_the_first_screen_before_any_number(
    written: Path, results: dict[str, Any]
) -> None:
    step, page = results["verdict"]["next_step"], page_of(written).text
    assert page.index(step["command"]) < page.index("minus random") < 1500
    markdown = (written / "report.md").read_text(encoding="utf-8")
    assert f"Next: {step['text']}:\n\n```sh\n{step['command']}\n```\n" in markdown[:1000]


def test_equal_compute_always_stands_beside_the_ratio_of_one_row(written: Path) -> None:
    page = page_of(written).text
    assert "1.08 (1.04 to 1.12) times as much as one random mask each" in page
    assert page.index("gradient noise of a row’s masks") < page.index("at equal compute") < 2500


def test_the_first_screen_has_the_arms_from_the_lowest_loss_on_and_the_control_last(written: Path) -> None:
    page = page_of(written).text  # fresh rows have the lowest loss
    labels = [ARMS[name] for name in ("full-span", "full-epoch", "full-batch")]
    places = [page.index(label) for label in labels]
    assert places == sorted(places) and page.index(f"{ARMS['fresh']}, control") > places[-1]
    assert f"{ARMS['full-span']} is better than random: held-out loss lower by" in page
    assert f"The lowest of the masking strategies, {ARMS['full-span']}, goes" in page
    assert page.index("word frequencies alone") > page.index(f"{ARMS['fresh']}, control")
    assert "For scale only, not to be chosen: random (fresh rows)." in page


def test_the_data_is_one_click_away(written: Path, results: dict[str, Any]) -> None:
    html = (written / "report.html").read_text(encoding="utf-8")
    found = {
        name: base64.b64decode(data).decode()
        for name, data in re.findall(r'<a download="([^"]+)" href="data:[^,"]*;base64,([^"]+)"', html)
    }
    assert set(found) == {f"{name}.{kind}" for name in FIGURES for kind in ("csv", "json")}
    rows = list(csv.DictReader(io.StringIO(found["loss-curves.csv"])))
    assert len(rows) == len(ARMS) * 3 * 22
    assert float(rows[0]["loss"]) == results["race"]["curves"]["random"]["0"]["losses"][0]
    ratios = json.loads(found["ratios.json"])
    assert [row["ratio.value"] for row in ratios] == [0.004, 0.12, 0.457]


def test_markdown_has_the_same_and_links_the_figures(written: Path, results: dict[str, Any]) -> None:
    text = (written / "report.md").read_text(encoding="utf-8")
    for name in FIGURES:
        assert f"](figures/{name}.png)" in text
    assert results["verdict"]["headline"] in text and "```yaml\nout: comparison" in text
    assert all(arm["label"] in text for arm in results["arms"])


def test_the_same_results_give_the_same_bytes(written: Path, results: dict[str, Any], tmp_path: Path) -> None:
    given = only(json.loads(json.dumps(results)), "coverage", "sweep")
    paths = write(tmp_path, given)
    figures = [path for path in paths if path.parent.name == "figures"]
    assert len(figures) == 6
    for path in figures:
        assert path.read_bytes() == (written / path.relative_to(tmp_path)).read_bytes(), path.name
    first = [path.read_bytes() for path in paths]
    assert [p.read_bytes() for p in write(tmp_path, copy.deepcopy(given))] == first


# ---------------------------------------------------------------- parts that are missing


def exhibits(results: Mapping[str, Any]) -> dict[str, Any]:
    return {own.name: own for part in parts_of(results) for own in part.exhibits}


def parts_of(results: Mapping[str, Any]) -> list[Part]:
    return report.parts_of(from_json(ComparisonResults, results))


@pytest.mark.parametrize("name", OF_PART)
def test_a_missing_part_says_what_would_make_it(name: str, results: dict[str, Any]) -> None:
    without = {**results, name: None}
    assert set(exhibits(without)) == set(FIGURES) - set(OF_PART[name])
    (part,) = (own for own in parts_of(without) if own.name == name)
    assert f"`--resume --only {'race' if name == 'sweep' else name}" in part.missing


def test_without_anything_there_is_still_a_page(results: dict[str, Any], tmp_path: Path) -> None:
    assert len(write(tmp_path, only(results))) == 2
    page = page_of(tmp_path)
    assert "No verdict: it needs a race" in page.text and page.text.count("--only") >= 4
    assert "Nothing was measured yet" in page.text


# ---------------------------------------------------------------- odd results


def only(results: Mapping[str, Any], *parts: str) -> dict[str, Any]:
    """Results of which only these parts are there."""
    own = copy.deepcopy(dict(results)) | {name: None for name in OF_PART if name not in parts}
    return with_verdict(own)


def with_verdict(results: dict[str, Any]) -> dict[str, Any]:
    return results | {"verdict": as_json(verdict(from_json(Measurements, results)))}


@pytest.mark.parametrize("number", [2, 12])
def test_two_arms_and_twelve(number: int, tmp_path: Path) -> None:
    names = {f"arm-{place}": f"arm {place} of {number}, a rather long name" for place in range(number)}
    write(tmp_path, only(made_json(names), "race"))
    page = page_of(tmp_path)
    assert all(page.text.count(label) >= 2 for label in names.values())


def test_runs_that_are_the_baselines_own_are_no_test(tmp_path: Path, results: dict[str, Any]) -> None:
    given = only(results, "race")
    own = given["race"]["paired"]["full-epoch"]
    same = {"n": 3, "mean": 0.0, "sd": 0.0, "note": "the baseline's own result with every seed"}
    given["race"]["paired"]["full-epoch"] = dict.fromkeys(own) | same
    by_name = {arm["name"]: arm for arm in given["arms"]}
    by_name["full-epoch"]["passes"] = 0.67
    write(tmp_path, with_verdict(given))
    page = page_of(tmp_path).text
    assert "the baseline's own result with every seed" in page
    assert "fully-explored (epoch) made at most one pass over the data" in page
    assert not re.search(r"\b(nan|inf|None)\b", page)


EVIL, RATE = "<script>alert(1)</script>", "run.optimizer.learning_rate"


def test_hostile_texts_are_texts(tmp_path: Path, written: Path) -> None:
    evil = f"{EVIL}\"'&|`*_[x](javascript:x) $\\frac{{1}}$ 日本\x00\ud800\u2028"
    made = made_results({"random": evil, EVIL: f"{EVIL} two"})
    assert made.evaluation is not None and made.sweep is not None
    points = [
        replace(point, settings={EVIL: evil, RATE: point.settings[RATE]}, against=None)
        for point in made.sweep.points
    ]
    best = [replace(each, strategy=f"{each.strategy} {evil}") for each in made.sweep.best]
    given = replace(
        made,
        **dict.fromkeys(("coverage", "variance", "downstream")),
        command=evil,
        data=replace(made.data, store=evil),
        evaluation=replace(made.evaluation, store=evil),
        model=replace(made.model, name=evil),
        settings={"out": evil, EVIL: ["```", evil], "</pre>": 1},
        verdict=Verdict(evil, (evil, f"`{EVIL}`"), evil, NextStep(evil, f"{evil} ```")),
        sweep=replace(made.sweep, axes={EVIL: (evil,), RATE: ()}, points=tuple(points), best=tuple(best)),
    )
    report.write_report(tmp_path, given)
    page = page_of(tmp_path)
    assert set(page.tags) <= set(page_of(written).tags)
    assert not [link for link in page.links if link.startswith("javascript")]
    assert page.text.count(EVIL) > 20
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    prose, _, _ = markdown.partition("## What was compared")
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    assert not [
        token for block in tokens for token in (block, *(block.children or ())) if "html" in token.type
    ]
    prose = re.sub(r"(?ms)^(`{3,})sh\n.*?^\1$", "", prose)
    assert "<script" not in re.sub(r"`[^`\n]+`", "", prose) and "````yaml\n" in markdown
    for path in (tmp_path / "figures").glob("*.svg"):
        assert not [own for own in ET.parse(path).iter() if own.tag.endswith("script")]


# ---------------------------------------------------------------- numbers and looks


@pytest.mark.parametrize(
    ("value", "half", "text"),
    [
        (0.4567, 0.01, "0.457 (0.447 to 0.467)"),
        (0.4567, 0.05, "0.46 (0.41 to 0.51)"),
        (-0.0761, 0.007, "−0.076 (−0.083 to −0.069)"),
        (-0.0001, 0.2, "0.00 (−0.20 to 0.20)"),
        (1234.5, 300.0, "1,200 (900 to 1,500)"),
    ],
)  # fmt: skip
def test_no_more_digits_than_the_interval_warrants(value: float, half: float, text: str) -> None:
    assert Estimate.of(interval(value, half)).text() == text


def test_a_ratio_does_not_end_at_nought() -> None:
    assert Ratio.of(IntervalResult(0.977, 0.038, 24.9)).text() == "0.977 (0.038 to 24.900)"
    assert Ratio.of(IntervalResult(0.98, 0.93, 1.03)).text() == "0.98 (0.93 to 1.03)"
    assert Ratio.of(IntervalResult(1.0, None, None)).text() == "1.000 (no interval)"


def test_what_can_be_seen_is_rounded_up() -> None:
    assert [rounded_up(own) for own in (2.41, 0.0201, 0.25, None)] == ["2.5", "0.021", "0.25", "–"]
    assert [rounded_up(own) for own in (99.5, 180.3, 12_345.0)] == ["100", "190", "13,000"]


def test_numbers_in_words() -> None:
    assert spell(-12345.678, 1) == "−12,345.7" and spell(None) == "–" and spell(-0.0004, 2) == "0.00"
    assert [compact(own) for own in (350_000, 1_234_567, 999_600, 7)] == ["350 k", "1.23 M", "1 M", "7"]
    assert probability(0.0001) == "< 0.001" and probability(0.0123) == "0.012"
    assert decimals(float("inf")) == decimals(0.0) == 3


def test_series_are_told_apart_by_more_than_colour() -> None:
    looks = [(colour(place), str(dash(place))) for place in range(len(SERIES) + 2 * len(DASHES))]
    assert len(set(looks)) == len(looks)


# ---------------------------------------------------------------- in a browser

WIDTHS = (400, 1400)
PROBE = """<script>addEventListener("error", e => parent.postMessage({w: W, error: e.message}, "*"));
addEventListener("load", () => { const d = document.documentElement; parent.postMessage({w: W, scroll: d.scrollWidth, height: d.scrollHeight,
  drawn: [...document.querySelectorAll("figure svg")].filter(s => s.getBoundingClientRect().width > 100).length}, "*"); });</script>"""


@pytest.mark.slow
def test_a_browser_shows_it_without_errors_and_nothing_is_too_wide(written: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on this machine")
    html = (written / "report.html").read_text(encoding="utf-8")
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)  # or the probe could not run
    frames = ""
    for width in WIDTHS:  # in frames, as a headless window is never narrower than 500 pixels
        probed = html.replace("</body>", f"{PROBE.replace('W,', f'{width},')}</body>")
        (tmp_path / f"at-{width}.html").write_text(probed, encoding="utf-8")
        frames += f'<iframe src="at-{width}.html" style="width:{width}px;height:900px;border:0"></iframe>'
    listener = (
        "const got = []; onmessage = e => { got.push(e.data); document.body.dataset.got = "
        "JSON.stringify(got); }"
    )
    (tmp_path / "both.html").write_text(f"<body><script>{listener}</script>{frames}</body>", encoding="utf-8")
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=5000",
        "--dump-dom",
        (tmp_path / "both.html").as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    found = re.search(r'data-got="([^"]*)"', done.stdout)
    assert found is not None
    seen = {own["w"]: own for own in json.loads(found[1].replace("&quot;", '"'))}
    assert sorted(seen) == list(WIDTHS)
    for width, own in seen.items():
        assert "error" not in own and own["scroll"] <= width and own["drawn"] == len(FIGURES)
