import re
from pathlib import Path

from palate.delivery.metrics import Metrics
from palate.delivery.shared_figures import Worker


def told(metrics: Metrics, name: str) -> float:
    [value] = re.findall(rf"^{re.escape(name)} (\S+)$", metrics.render().decode(), re.MULTILINE)
    return float(value)


def test_whoever_is_asked_tells_the_sum_of_all(tmp_path: Path) -> None:
    first, second = Metrics(Worker(0, tmp_path)), Metrics(Worker(1, tmp_path))
    first.events.inc(3)
    first.answered("GET", "/healthz", 200, 0.002)
    second.events.inc(4)
    second.pool.set(5)
    first.shared.write()
    assert told(second, "palate_events_accepted_total") == 7
    assert told(second, 'palate_requests_total{method="GET",route="/healthz",status="200"}') == 1
    assert told(second, 'palate_request_seconds_bucket{le="0.0025",route="/healthz"}') == 1
    assert told(second, "palate_pool_items") == 5
    assert told(first, "palate_events_accepted_total") == 3  # what the other hasn't written yet isn't known


def test_who_takes_the_place_of_one_that_died_goes_on_from_its_figures(tmp_path: Path) -> None:
    died = Metrics(Worker(0, tmp_path))
    died.events.inc(3)
    died.shared.write()
    heir = Metrics(Worker(0, tmp_path))
    heir.events.inc()
    heir.shared.write()
    assert told(heir, "palate_events_accepted_total") == 4
    (tmp_path / "0.figures").write_bytes(b"torn")
    assert told(Metrics(Worker(1, tmp_path)), "palate_events_accepted_total") == 0
