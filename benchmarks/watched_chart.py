"""Sweeps of `palate tune --sweep … --json` as one drawing: MAP@10 on training and on validation against each parameter.

python benchmarks/watched_chart.py docs/images/watched_tuning.svg l2.json factors.json alpha.json power.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from palate import charts
from palate.charts import Series

METRIC = "map@10"
STYLE = """<style>
svg { font: 11px system-ui, sans-serif; color: #1e1b17; background: #fff } text { fill: #655e54 }
.axis { stroke: #a39c90; fill: none } .grid { stroke: #e4dfd5; fill: none } .line { fill: none; stroke-width: 1.5 }
.training { stroke: #2b5d8a; fill: #2b5d8a } .validation { stroke: #8c2f39; fill: #8c2f39 } path.training, path.validation { fill: none }
</style>"""


def drawn(sweep: dict, part: str) -> str:
    name, points = sweep["sweep"], sweep["points"]
    x = [float(point["values"][name]) for point in points]
    y = [float(point[part][METRIC]["value"]) for point in points]
    series = [Series(part, tuple(zip(x, y, strict=True)), line=True)]
    return charts.chart(charts.axis(x, log=max(x) >= 10 * min(x)), charts.axis([0, *y]), series, f"{METRIC} by {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("sweeps", type=Path, nargs="+")
    asked = parser.parse_args()
    wide, high = charts.WIDTH, charts.HEIGHT + 20
    parts = []
    for row, file in enumerate(asked.sweeps):
        sweep = json.loads(file.read_text())
        for column, part in enumerate(("training", "validation")):
            inner = drawn(sweep, part).replace("<svg ", f'<svg width="{wide}" height="{high - 20}" ', 1)
            title = f'<text x="{charts.LEFT}" y="14">{METRIC} on {part} by {sweep["sweep"]}</text>'
            parts.append(
                f'<g transform="translate({column * wide},{row * high})">{title}<g transform="translate(0,20)">{inner}</g></g>'
            )
    size = f'width="{2 * wide}" height="{len(asked.sweeps) * high}" viewBox="0 0 {2 * wide} {len(asked.sweeps) * high}"'
    asked.file.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{STYLE}{"".join(parts)}</svg>\n')


if __name__ == "__main__":
    main()
