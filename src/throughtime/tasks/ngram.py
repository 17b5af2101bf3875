"""What counting reaches: n-grams, the baselines a network has to beat."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def ngram_nats(train: Array, held_out: Array, vocabulary: int, order: int) -> float:
    """Total -log p of `held_out` under an interpolated Witten-Bell model of `train`.

        p_k(w | c) = (n(c w) + T(c) · p_{k-1}(w | c')) / (n(c) + T(c)),    p_0(w) = 1/V

    n counts, T(c) is how many different tokens followed the context c, c' is c without its oldest token; a context never
    seen leaves p_{k-1}. Order 1 is the unigram.

    Args: train, held_out: token ids [n]; the first tokens of `held_out` are predicted from shorter contexts.
    Returns: nats, to be divided by tokens or characters.
    Source: Witten, Bell (1991); in this form Chen, Goodman (1999), section 2.5.
    """
    tokens = np.concatenate([train, held_out]).astype(np.int64)
    n, total = len(train), len(tokens)
    p = np.full(len(held_out), 1.0 / vocabulary)
    context = np.zeros(total, dtype=np.int64)  # the number of the context before each token
    for k in range(order):
        if k:  # one token older: pairs (token k before, context so far), numbered anew
            older = np.zeros(total, dtype=np.int64)
            older[k:] = tokens[:-k]
            _, context = np.unique(context * vocabulary + older, return_inverse=True)
        _, gram = np.unique(context * vocabulary + tokens, return_inverse=True)
        seen = np.zeros(n, dtype=bool)
        seen[k:] = True  # the first k tokens have no context so long
        n_gram = np.bincount(gram[:n][seen], minlength=int(gram.max()) + 1)
        n_context = np.bincount(context[:n][seen], minlength=int(context.max()) + 1)
        firsts = np.unique(gram[:n][seen], return_index=True)[1]
        types = np.bincount(context[:n][seen][firsts], minlength=int(context.max()) + 1)
        c, g = context[n:], gram[n:]
        whole = n_context[c] + types[c]
        known = (whole > 0) & (np.arange(len(held_out)) >= k)
        p = np.where(known, (n_gram[g] + types[c] * p) / np.maximum(whole, 1), p)
    return float(-np.log(p).sum())
