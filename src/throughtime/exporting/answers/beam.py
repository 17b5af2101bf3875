"""Beam search over a step, with numpy alone. Scores are log p(y) / ((5 + |y|) / 6)^0.6, after Wu et al. (2016)."""

from collections.abc import Callable
from typing import Any

import numpy as np


def beam_search(
    step: Callable[[Any, Any], tuple[Any, Any]], states: Any, longest: int, size: int = 5, end: int = 1, never: int = 0
) -> list[int]:
    """The best of `size` hypotheses kept, without its end. step: (tokens [R], states [R, ...]) -> (log_p [R, V], states)."""
    alpha, done = 0.6, []
    tokens, total, written = np.array([end]), np.zeros(1), [list[int]()]
    for length in range(longest + 1):
        log_p, states = step(tokens, states)
        scores = total[:, None] + log_p.astype(np.float64)
        scores[:, never] = -np.inf
        if length == longest:  # nothing may follow but the end
            scores[:, np.arange(scores.shape[1]) != end] = -np.inf
        few = min(2 * size, scores.size)
        best = np.argpartition(-scores, few - 1, axis=None)[:few]
        best = best[np.argsort(-scores.flat[best])]
        best = best[np.isfinite(scores.flat[best])]
        row, token = np.divmod(best, scores.shape[1])
        for k in np.flatnonzero(token[:size] == end):  # one that ends further down was not among the best
            done.append((scores[row[k], end] / ((6 + length) / 6) ** alpha, written[row[k]]))
        going = np.flatnonzero(token != end)[:size]
        row, token, total = row[going], token[going], scores.flat[best[going]]
        reachable = total[0] / ((6 + longest) / 6) ** alpha if len(total) else -np.inf
        if not len(total) or (size == 1 and done):
            break
        if len(done) >= size and sorted(score for score, _ in done)[-size] >= reachable:
            break
        tokens, written = token, [[*written[r], int(t)] for r, t in zip(row, token, strict=True)]
        states = [state[row] for state in states]
    return max(done, key=lambda found: found[0])[1]
