"""Variables that one factor alone mentions, summed out on the spot."""

from __future__ import annotations

import torch

from sumout.factors import FactorGraph
from sumout.infer import marginal_map


def test_states_count_where_their_last_factor_is_constant() -> None:
    """Summing ``a`` out leaves a factor that is alike for both states of ``v``, of which there are two all the same."""
    graph = FactorGraph.from_tables(
        {"f": (["p", "a", "v"], torch.ones(3, 2, 2)), "g": (["m"], [0.25, 0.75])},
        plates={"p": 3},
        ordinals={"a": ["p"]},
    )
    best = marginal_map(graph, ["m"])()
    assert best["m"] == 1
    torch.testing.assert_close(best.log_prob.exp(), torch.tensor(0.75 * 2 * 2**3))
