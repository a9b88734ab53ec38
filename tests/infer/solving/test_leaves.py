"""Variables that one factor alone mentions, summed out on the spot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sumout import infer, io
from sumout.errors import MemoryLimitError
from sumout.factors import FactorGraph
from sumout.infer import marginal_map
from sumout.settings import settings

EXACT = {"rtol": 1e-9, "atol": 1e-9}


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


def causes(count: int, effects: int, grad: bool = False) -> FactorGraph:
    """Causes, and effects of all of them, with effects of their own."""
    torch.manual_seed(3)
    tables = {}
    names = [f"c{number}" for number in range(count)]
    for name in names:
        tables[name] = ([name], torch.rand(2, dtype=torch.float64).softmax(-1).log().requires_grad_(grad))
    for number in range(effects):
        table = torch.randn(*[2] * count, 2, dtype=torch.float64).log_softmax(-1)
        tables[f"e{number}"] = ([*names, f"e{number}"], table)
        table = torch.randn(2, 3, dtype=torch.float64).log_softmax(-1)
        tables[f"d{number}"] = ([f"e{number}", f"d{number}"], table)
    return FactorGraph.from_tables(tables, log=True)


@pytest.mark.parametrize("grad", [False, True])
def test_what_is_not_asked_for_and_has_no_effect_that_is_costs_nothing(grad: bool) -> None:
    graph = causes(5, 4, grad)
    for evidence, wanted, tables in (
        ({}, ["c0"], 5),  # Of what is alone, no more is known.
        ({"e1": 0}, ["c0", ("c1", "c2")], 6),
        ({"d1": 0}, ["c0"], 7),
        ({"d0": 2, "e3": 1}, [("d1", "c4")], 10),
    ):
        few = infer.marginals(graph, wanted)(evidence=evidence)
        if not grad:
            assert len([each for each in few.plan.structure.factors if each.inputs]) <= tables
        all_of_them = [name for name in graph.variables if name not in evidence]
        whole = infer.marginals(graph, [*wanted, *all_of_them])(evidence=evidence)
        torch.testing.assert_close(few.log_evidence, whole.log_evidence, **EXACT)
        torch.testing.assert_close(infer.log_evidence(graph)(evidence=evidence), whole.log_evidence, **EXACT)
        for each in wanted:
            torch.testing.assert_close(few.tables[each], whole.tables[each], **EXACT)


def test_rows_of_a_few_observations() -> None:
    """Of 400 effects that would tie all causes together, two are observed."""
    graph = causes(4, 400)
    rows = {"d7": [0, 1, 2, None], "e8": [1, None, 0, 0]}
    answer = infer.marginals(graph, "c1")(evidence=rows)
    assert len(answer.plan.structure.factors) < 12
    for row in range(4):
        seen = {name: column[row] for name, column in rows.items() if column[row] is not None}
        one = infer.marginals(graph, ["c1", "d9"])(evidence=seen)
        torch.testing.assert_close(answer.tables["c1"][row], one.tables["c1"], **EXACT)
        torch.testing.assert_close(answer.log_evidence[row], one.log_evidence, **EXACT)


def test_tables_that_do_not_sum_to_the_same_stay() -> None:
    graph = FactorGraph.from_tables({"a": (["a"], [0.5, 0.5]), "f": (["a", "b"], [[0.5, 0.5], [0.9, 0.2]])})
    torch.testing.assert_close(infer.marginals(graph, "a")().tables["a"], torch.tensor([1.0, 1.1]) / 2.1)


def test_a_root_of_a_network_needs_little_memory() -> None:
    graph = io.read_bif(Path(__file__).parents[2] / "data/networks/water.bif")
    root = next(factor.inputs[0] for factor in graph.factors if len(factor.inputs) == 1)
    prior = next(factor.data for factor in graph.factors if factor.inputs == (root,))
    with settings.override(memory_limit=100_000):
        torch.testing.assert_close(infer.marginals(graph, root)().tables[root], prior.exp(), **EXACT)
        with pytest.raises(MemoryLimitError):
            infer.posterior_samples(graph, 10**6)()
