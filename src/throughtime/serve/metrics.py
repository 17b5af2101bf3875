"""What a server counts, as Prometheus reads it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


class Metrics:
    """Counts of requests by path and status, and how long they took."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self._took = [0] * (len(BOUNDS) + 1)
        self._seconds = 0.0

    def count(self, path: str, status: int, seconds: float) -> None:
        """A request that has been answered."""
        self.requests[path, status] += 1
        self._took[sum(seconds > bound for bound in BOUNDS)] += 1
        self._seconds += seconds

    def text(self, values: Iterable[tuple[str, str, str, dict[str, float]]]) -> str:
        """All as text. values: more of them: a name, its type, what it is, and its values by their labels."""
        by_path = {f'{{path="{path}",status="{status}"}}': float(n) for (path, status), n in self.requests.items()}
        lines = []
        for name, kind, words, found in [("requests_total", "counter", "Requests answered.", by_path), *values]:
            lines += [f"# HELP throughtime_{name} {words}", f"# TYPE throughtime_{name} {kind}"]
            lines += [f"throughtime_{name}{labels} {value:.12g}" for labels, value in found.items()]
        name = "throughtime_request_seconds"
        lines += [f"# HELP {name} How long requests took.", f"# TYPE {name} histogram"]
        for bound, count in zip([*map(str, BOUNDS), "+Inf"], itertools.accumulate(self._took), strict=True):
            lines.append(f'{name}_bucket{{le="{bound}"}} {count}')
        lines += [f"{name}_sum {self._seconds:.9g}", f"{name}_count {sum(self._took)}"]
        return "\n".join(lines) + "\n"
