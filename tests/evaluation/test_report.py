"""Reports hold all that they should, and nothing that runs or loads."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from palate.errors import PalateError
from palate.evaluation import report
from palate.evaluation.measuring import Figure, Metric
from palate.evaluation.report import Shelf
from palate.evaluation.tuning import Choice, Range, Space, Trial

VOID = ("meta", "circle", "path", "rect")


class Outline(HTMLParser):
    """Whether elements are closed in order, and what they are."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def count(self, tag: str, css: str = "") -> int:
        return sum(name == tag and css in (attributes.get("class") or "") for name, attributes in self.seen)


def checked(page: str) -> Outline:
    outline = Outline(page)
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in outline.seen}
    assert "http" not in page
    assert "prefers-color-scheme: dark" in page
    return outline


def trial(number: int, factors: int, kind: str, state: str = "complete") -> Trial:
    figures = {"ndcg@10": Figure(0.1 * number, 0.05, 0.9), "rmse": Figure(None)}
    return Trial(
        number, {"factors": factors, "kind": kind}, state, 1.0, figures, figures if state == "complete" else {}
    )


TRIALS = [trial(0, 8, "a"), trial(1, 16, "<b>"), trial(2, 32, "a"), trial(3, 64, "a", "pruned")]
SHELF = Shelf("ann & bob", ("Seen",), ("Found", "Missed"), {"best": ("Found", "<Other>"), "before": ("Other",)})
FIGURE = {"value": 0.5, "low": 0.4, "high": 0.6}
EVALUATION = {
    "model": "ials",
    "split": "time",
    "users": 1234,
    "metrics": {"ndcg@10": FIGURE, "rmse": {"value": None, "low": None, "high": None}},
    "stated": ["Ties & all."],
}


def test_a_report_of_an_evaluation() -> None:
    page = report.of_evaluation("ials on <events>", EVALUATION, [SHELF])
    outline = checked(page)
    assert "ials on &lt;events&gt;" in page
    assert "0.5000" in page
    assert "Ties &amp; all." in page
    assert outline.count("li", "hit") == 1
    assert "&lt;Other&gt;" in page


def test_a_report_of_a_search_draws_every_parameter_against_every_metric() -> None:
    answer = {
        "model": "ials",
        "best": {"settings": {"factors": 32, "kind": "a", "l2": 0.123456}, "values": {"factors": 32}},
        "test": EVALUATION | {"against": {"model": "ials", "name": "as it was set", "metrics": EVALUATION["metrics"]}}
        | {"difference": EVALUATION["metrics"]},
        "stated": ["One."],
    }  # fmt: skip
    space: Space = {"factors": Range(8, 64, log=True, whole=True), "kind": Choice(("a", "<b>"))}
    objectives = (Metric("ndcg", 10), Metric("ndcg", 10))
    shown = (Metric("ndcg", 10), Metric("rmse"))
    page = report.of_search("Tuning", answer, TRIALS, space, objectives, shown, [SHELF])
    outline = checked(page)
    assert "--set factors=32" in page
    assert (
        outline.count("svg") == 2 * 2 + 1 + 2
    )  # training and validation of each parameter; the front; trial after trial
    assert outline.count("circle", "validation") >= 3 * 2
    assert "1 more were stopped early" in page


def test_a_report_of_a_sweep_shades_overfitting() -> None:
    curve = [(0.1, 0.1), (0.2, 0.3), (0.3, 0.2), (0.4, 0.1)]
    trials = [
        Trial(n, {"l2": 10.0**n}, "complete", 0.1, {"hr@1": Figure(found)}, {"hr@1": Figure(fits)})
        for n, (fits, found) in enumerate(curve)
    ]
    page = report.of_sweep("l2 of ials", "l2", trials, (Metric("hr", 1),), ["One."], log=True)
    outline = checked(page)
    assert outline.count("rect", "overfit") == 2  # in the chart of the validation and in that of the training
    assert outline.count("circle") == 8


def test_a_sweep_of_names_has_them_at_its_axis() -> None:
    figures = {"hr@1": Figure(0.1)}
    trials = [Trial(n, {"kind": name}, "complete", 0.1, figures, figures) for n, name in enumerate("ab")]
    page = report.of_sweep("kind", "kind", trials, (Metric("hr", 1),), [], log=False)
    assert ">b</text>" in page


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    report.write(tmp_path / "report.html", "<p>")
    assert (tmp_path / "report.html").read_text() == "<p>"
    with pytest.raises(PalateError, match="can't be written"):
        report.write(tmp_path / "none" / "report.html", "<p>")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
