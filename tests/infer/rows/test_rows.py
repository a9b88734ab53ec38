"""Tables of evidence against brute force, row by row: evidence, marginals, MAP; every form of a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from posteriors import Posterior
from strategies import factor_graphs, to_problem
from sumout import infer, io
from sumout.errors import EvidenceError, ImpossibleEvidenceError, MemoryLimitError
from sumout.factors import FactorGraph
from sumout.infer import log_evidence, map_assignment, marginals
from sumout.infer.rows import batches
from sumout.settings import settings as switches

EXACT = {"rtol": 1e-9, "atol": 1e-9}


@st.composite
def tables(draw: st.DrawFn, graph: FactorGraph) -> dict[str, torch.Tensor]:
    """Random columns for some variables, with missing entries in some."""
    names = draw(st.lists(st.sampled_from(sorted(graph.variables)), min_size=1, unique=True))
    count = draw(st.integers(1, 5))
    seed = draw(st.integers(0, 10**6))
    generator = torch.Generator().manual_seed(seed)
    columns = {}
    for name in names:
        variable = graph.variables[name]
        shape = (count, *(graph.plates[plate].size for plate in sorted(variable.plates)))
        column = torch.randint(0, variable.size, shape, generator=generator)
        if draw(st.booleans()):
            column[torch.rand(shape, generator=generator) < 0.4] = -1
        columns[name] = column
    return columns


def agreeing(posterior: Posterior, columns: dict[str, torch.Tensor], row: int) -> torch.Tensor:
    """Which assignments agree with a row."""
    agree = torch.ones(len(posterior.assignments), dtype=torch.bool)
    for name, element in posterior.problem.copies():
        if name in columns:
            seen = int(columns[name][(row, *element)])
            if seen >= 0:
                agree &= posterior.assignments[:, posterior.columns[name, element]] == seen
    return agree


def rows_of(columns: dict[str, torch.Tensor]) -> int:
    return len(next(iter(columns.values())))


@given(factor_graphs(max_assignments=1000), st.data())
@settings(max_examples=200)
def test_log_evidence(graph: FactorGraph, data: st.DataObject) -> None:
    assume(graph.factors and graph.variables)
    columns = data.draw(tables(graph))
    posterior = Posterior(to_problem(graph))
    ours = log_evidence(graph)(evidence=columns)
    theirs = torch.stack(
        [
            posterior.log_joint.masked_fill(~agreeing(posterior, columns, row), -torch.inf).logsumexp(0)
            for row in range(rows_of(columns))
        ]
    )
    torch.testing.assert_close(ours, theirs, **EXACT)


@given(factor_graphs(max_assignments=1000), st.data())
@settings(max_examples=200)
def test_marginals_and_map(graph: FactorGraph, data: st.DataObject) -> None:
    assume(graph.factors and graph.variables)
    columns = data.draw(tables(graph))
    posterior = Posterior(to_problem(graph))
    rows = [agreeing(posterior, columns, row) for row in range(rows_of(columns))]
    if any((posterior.log_joint[agree] == -torch.inf).all() for agree in rows):
        for query in (marginals(graph), map_assignment(graph)):
            with pytest.raises(ImpossibleEvidenceError, match="rows"):
                query(evidence=columns)
        return
    answer, best = marginals(graph)(evidence=columns), map_assignment(graph)(evidence=columns)
    hidden = {name for name in graph.variables if name not in columns or (columns[name] < 0).any()}
    assert set(answer) == set(best) == hidden
    for row, agree in enumerate(rows):
        logs = posterior.log_joint.masked_fill(~agree, -torch.inf)
        weights = torch.softmax(logs, 0)
        torch.testing.assert_close(best.log_prob[row], logs.max(), **EXACT)
        chosen = agree.clone()
        for name, element in posterior.problem.copies():
            if name in hidden:
                states = posterior.assignments[:, posterior.columns[name, element]]
                exact = torch.stack(
                    [weights[states == each].sum() for each in range(graph.variables[name].size)]
                )
                torch.testing.assert_close(answer.tables[name][(row, *element)], exact, **EXACT)
                chosen &= states == best[name][(row, *element)]
        assert chosen.sum() == 1
        torch.testing.assert_close(posterior.log_joint[chosen][0], logs.max(), **EXACT)


@given(factor_graphs(max_variables=4, zeros=False, max_assignments=500), st.data())
@settings(max_examples=50)
def test_gradients(graph: FactorGraph, data: st.DataObject) -> None:
    assume(graph.factors and graph.variables)
    columns = data.draw(tables(graph))
    leaves = [factor.data.requires_grad_() for factor in graph.factors]
    ours = log_evidence(graph)(evidence=columns)
    weights = torch.rand_like(ours)
    posterior = Posterior(to_problem(graph))
    theirs = torch.stack(
        [
            posterior.log_joint[agreeing(posterior, columns, row)].logsumexp(0)
            for row in range(rows_of(columns))
        ]
    )
    for a, b in zip(
        torch.autograd.grad((ours * weights).sum(), leaves, allow_unused=True, materialize_grads=True),
        torch.autograd.grad((theirs * weights).sum(), leaves, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(a, b, **EXACT)


def test_gradients_of_marginals() -> None:
    table = torch.rand(3, 4, dtype=torch.float64).log().requires_grad_()
    graph = FactorGraph.from_tables(
        {"f": (["x", "y"], table), "g": (["x"], torch.rand(3).double())}, log=True
    )
    rows = {"y": [0, 3, None]}
    ours = marginals(graph, "x")(evidence=rows)["x"].probs
    theirs = [marginals(graph, "x")(evidence={} if y is None else {"y": y})["x"].probs for y in rows["y"]]
    weights = torch.rand_like(ours)
    (a,) = torch.autograd.grad((ours * weights).sum(), table)
    (b,) = torch.autograd.grad((torch.stack(theirs) * weights).sum(), table)
    torch.testing.assert_close(a, b, **EXACT)


def weather() -> FactorGraph:
    return FactorGraph.from_tables(
        {
            "rain": (["rain"], torch.tensor([0.8, 0.2], dtype=torch.float64)),
            "wet|rain": (["rain", "wet"], torch.tensor([[0.9, 0.1], [0.25, 0.75]], dtype=torch.float64)),
            "late|rain": (["rain", "late"], torch.tensor([[0.7, 0.3], [0.5, 0.5]], dtype=torch.float64)),
        },
        states={"rain": ["no", "yes"], "wet": ["no", "yes"]},
    )


EXPECTED = [[0, 1], [1, -1], [-1, -1], [-1, 1]]  # of wet and late
FORMS: dict[str, tuple[Any, list[str] | None]] = {
    "tensors": ({"wet": torch.tensor([0, 1, -1, -1]), "late": torch.tensor([1, -1, -1, 1])}, None),
    "floats": (
        {"wet": torch.tensor([0, 1, torch.nan, -1]), "late": torch.tensor([1.0, -1, torch.nan, 1])},
        None,
    ),
    "lists": ({"wet": ["no", "yes", None, None], "late": [1, None, float("nan"), 1.0]}, None),
    "arrays": ({"wet": np.array(["no", "yes", None, None]), "late": np.array([1, -1, -1, 1])}, None),
    "booleans": ({"wet": [False, True, None, None], "late": [True, None, None, True]}, None),
    "mappings": ([{"wet": "no", "late": 1}, {"wet": "yes"}, {}, {"late": 1}], None),
    "matrix": (torch.tensor(EXPECTED), ["wet", "late"]),
    "array": (np.array(EXPECTED), ["wet", "late"]),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_a_table(form: str) -> None:
    table, columns = FORMS[form]
    more = {} if columns is None else {"columns": columns}
    single = []
    for wet, late in EXPECTED:
        seen = {name: value for name, value in (("wet", wet), ("late", late)) if value >= 0}
        single.append(log_evidence(weather())(evidence=seen))
    torch.testing.assert_close(log_evidence(weather())(evidence=table, **more), torch.stack(single), **EXACT)


def test_a_data_frame() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"wet": ["no", "yes", None, None], "late": [1, None, None, 1]})
    expected = log_evidence(weather())(evidence=torch.tensor(EXPECTED), columns=["wet", "late"])
    torch.testing.assert_close(log_evidence(weather())(evidence=frame), expected)

    class Other:
        """As data frames of other libraries are."""

        columns = ("wet", "late")

        def __getitem__(self, name: str) -> Any:
            return frame[name]

    torch.testing.assert_close(log_evidence(weather())(evidence=Other()), expected)
    nullable = frame.astype({"late": "Int64"})
    torch.testing.assert_close(log_evidence(weather())(evidence=nullable), expected)


def test_a_value_for_all_rows() -> None:
    answer = marginals(weather())(evidence={"wet": ["no", "yes"], "late": 1})
    one = marginals(weather())(evidence={"wet": "yes", "late": 1})
    torch.testing.assert_close(answer["rain"].probs[1], one["rain"].probs, **EXACT)
    assert answer["rain"].batch_shape == (2,)
    assert "rain" in str(answer)


def test_joint_marginals_of_rows() -> None:
    table = {"wet": ["no", None, "yes"]}
    answer = marginals(weather(), sites=[("rain", "late"), "rain"])(evidence=table)
    for row, wet in enumerate(table["wet"]):
        one = marginals(weather(), sites=[("rain", "late")])(evidence={} if wet is None else {"wet": wet})
        torch.testing.assert_close(answer["rain", "late"].probs[row], one["rain", "late"].probs, **EXACT)
    assert answer["rain", "late"].batch_shape == (3,)


def test_other_queries_of_rows() -> None:
    """What is made of joint tables takes rows too, one of which is what it is alone."""
    rows = [{"wet": "no", "late": 1}, {"wet": "yes"}, {}, {"late": 0}]
    weights = torch.rand(2, 2, 3, dtype=torch.float64)
    for query in (
        infer.entropy(weather(), "rain"),
        infer.entropy(weather(), ["rain", "late"]),
        infer.mutual_information(weather(), "rain", "late"),
        infer.expectation(weather(), ["late", "rain"], weights),
    ):
        together = query(evidence=[{"wet": row.get("wet")} for row in rows])
        alone = [query(evidence={key: row[key] for key in row if key == "wet"}) for row in rows]
        torch.testing.assert_close(together, torch.stack(alone), **EXACT)
    beliefs = infer.factor_beliefs(weather())(evidence=rows)
    assert beliefs.log_evidence.shape == (4,)
    assert beliefs["late|rain"].names == ("rain", "late")
    for number, row in enumerate(rows):
        alone_here = infer.factor_beliefs(weather())(evidence=row)
        for name, table in alone_here.items():
            here = beliefs[name].marginal(*table.names).probs[number]
            torch.testing.assert_close(here, table.probs, **EXACT)
    seen_in_all = infer.factor_beliefs(weather())(evidence={"late": [0, 1]})
    assert seen_in_all["late|rain"].names == ("rain",)
    assert seen_in_all["late|rain"].probs.shape == (2, 2)
    assert "log evidence" in str(seen_in_all)


def test_queries_that_take_no_rows_say_so() -> None:
    rows = {"wet": ["no", "yes", None]}
    for query in (
        infer.entropy(weather()),
        infer.k_best(weather(), 2),
        infer.max_marginals(weather()),
        infer.marginal_map(weather(), "rain"),
        infer.posterior_samples(weather(), 2),
    ):
        with pytest.raises(
            EvidenceError, match="table of 3 rows.*row by row.*Tables are taken by log_evidence"
        ):
            query(evidence=rows)
        with pytest.raises(EvidenceError, match="Did you mean 'wet'"):
            query(evidence={"wett": [0, 1]})


def test_rows_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("wet,late\nno,1\nyes,\n,\n,1\n", encoding="utf-8")
    expected = log_evidence(weather())(evidence=torch.tensor(EXPECTED), columns=["wet", "late"])
    found = log_evidence(weather())(evidence=io.read_evidence_csv(path))
    torch.testing.assert_close(found, expected, **EXACT)
    with pytest.raises(EvidenceError, match="read_evidence_csv"):
        log_evidence(weather())(evidence=path)


def test_many_rows_are_taken_in_parts_and_by_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    column = torch.randint(-1, 2, (101,))
    late = torch.randint(-1, 2, (101,))
    table = {"wet": column, "late": late}
    whole = marginals(weather())(evidence=table)
    monkeypatch.setattr(batches, "_ROWS_AT_ONCE", (7,))
    monkeypatch.setattr(batches, "_MANY", 1)
    parts = marginals(weather())(evidence=table)
    torch.testing.assert_close(parts.log_evidence, whole.log_evidence, **EXACT)
    assert set(parts) == set(whole) == {"rain", "wet", "late"}
    for name in parts:
        torch.testing.assert_close(parts.tables[name], whole.tables[name], **EXACT)
    best, again = map_assignment(weather())(evidence=table), None
    monkeypatch.setattr(batches, "_MANY", 10**9)
    monkeypatch.setattr(batches, "_PLANNING", 10.0)
    again = map_assignment(weather())(evidence=table)
    torch.testing.assert_close(best.log_prob, again.log_prob, **EXACT)
    torch.testing.assert_close(best.log_evidence, whole.log_evidence, **EXACT)


def test_rows_that_lack_the_same_entries_go_together_where_that_saves_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each entry that a row lacks would leave a variable in the tables of all rows, of which a few are too many."""
    names = [f"x{place}" for place in range(7)]
    table = torch.rand(*[6] * 7, dtype=torch.float64)
    graph = FactorGraph.from_tables({"f": (names, table), "g": (["x0"], torch.rand(6).double())})
    columns = {name: torch.randint(0, 6, (8,)) for name in names[:6]}
    for row, name in enumerate(names[:6]):
        columns[name][row] = -1
    found = {}
    for planning in (0.0, 10.0):
        monkeypatch.setattr(batches, "_PLANNING", planning)
        answer = marginals(graph, "x6")(evidence=columns)
        found[planning] = answer
    assert found[0.0].plan.flops < found[10.0].plan.flops / 10
    torch.testing.assert_close(found[0.0].log_evidence, found[10.0].log_evidence, **EXACT)
    torch.testing.assert_close(found[0.0].tables["x6"], found[10.0].tables["x6"], **EXACT)


def test_rows_are_cut_to_the_memory_limit() -> None:
    names = [f"x{place}" for place in range(8)]
    graph = FactorGraph.from_tables(
        {name: ([*pair], torch.rand(20, 20)) for name in names for pair in [(name, "y")]}
    )
    table = {name: torch.randint(0, 20, (300,)) for name in names[:4]}
    whole = log_evidence(graph)(evidence=table)
    with switches.override(memory_limit=200_000):
        torch.testing.assert_close(log_evidence(graph)(evidence=table), whole)
    with switches.override(memory_limit=1_000), pytest.raises(MemoryLimitError):
        log_evidence(graph)(evidence=table)


def test_impossible_rows_are_named() -> None:
    graph = FactorGraph.from_tables({"f": (["x", "y"], [[0.5, 0.0], [0.25, 0.25]])})
    table = {"x": [0, 0, 1], "y": [0, 1, 1]}
    assert log_evidence(graph)(evidence=table).isinf().tolist() == [False, True, False]
    with pytest.raises(ImpossibleEvidenceError, match="rows 1 have"):
        marginals(graph)(evidence=table)


def test_mistakes() -> None:
    query = log_evidence(weather())
    with pytest.raises(EvidenceError, match="Row 1 of the table: Unknown state 'yess'.*Did you mean 'yes'"):
        query(evidence={"wet": ["no", "yess"]})
    with pytest.raises(EvidenceError, match="Did you mean 'wet'"):
        query(evidence={"wett": [0, 1]})
    with pytest.raises(EvidenceError, match="'late' has 1 rows and 'wet' has 2"):
        query(evidence={"wet": [0, 1], "late": [0]})
    with pytest.raises(EvidenceError, match="Row 2 of the column 'wet' is 2"):
        query(evidence={"wet": torch.tensor([0, 1, 2])})
    with pytest.raises(EvidenceError, match=r"Row 0 of the column 'wet' is 0\.5"):
        query(evidence={"wet": torch.tensor([0.5])})
    with pytest.raises(EvidenceError, match="no rows"):
        query(evidence=[])
    with pytest.raises(EvidenceError, match="names of its 2 columns"):
        query(evidence=torch.zeros(3, 2))
    with pytest.raises(EvidenceError, match=r"shape \(2, 2\)"):
        query(evidence={"wet": torch.zeros(2, 2, dtype=torch.long)})
    with pytest.raises(EvidenceError, match="or a table"):
        query(evidence=17)
    with pytest.raises(EvidenceError, match="'wet' is not summed out"):
        marginals(weather(), "wet")(evidence={"wet": [0, 1]})


def test_a_variable_called_rows() -> None:
    graph = FactorGraph.from_tables({"f": (["rows", "x"], [[0.5, 0.25], [0.1, 0.2]])})
    value = log_evidence(graph)(evidence={"x": [0, 1]})
    torch.testing.assert_close(value.exp(), torch.tensor([0.6, 0.45]))


def crossed() -> FactorGraph:
    """Plates that are not tree-shaped: one of them is written out."""
    return FactorGraph.from_tables(
        {
            "a": (["i", "a"], torch.rand(2, 2, dtype=torch.float64)),
            "f": (["i", "j", "a", "b"], torch.rand(2, 3, 2, 2, dtype=torch.float64)),
        },
        plates={"i": 2, "j": 3},
        ordinals={"a": ["i"], "b": ["j"]},
    )


def test_rows_of_crossed_plates() -> None:
    graph = crossed()
    columns = {
        "b": torch.tensor([[0, -1, 1], [-1, -1, 1], [-1, -1, -1]]),
        "a": torch.tensor([[0, 1], [1, 1], [-1, 0]]),
    }
    posterior = Posterior(to_problem(graph))
    answer, best = marginals(graph)(evidence=columns), map_assignment(graph)(evidence=columns)
    for row in range(3):
        logs = posterior.log_joint.masked_fill(~agreeing(posterior, columns, row), -torch.inf)
        torch.testing.assert_close(answer.log_evidence[row], logs.logsumexp(0), **EXACT)
        torch.testing.assert_close(best.log_prob[row], logs.max(), **EXACT)
        weights = logs.softmax(0)
        states = posterior.states("b", {"j": 0})
        exact = torch.stack([weights[states == each].sum() for each in range(2)])
        torch.testing.assert_close(answer.tables["b"][row, 0], exact, **EXACT)


def test_a_row_that_does_not_fit_runs_in_slices() -> None:
    side = 5
    names = [[f"x{row}{column}" for column in range(side)] for row in range(side)]
    tables = {}
    for row in range(side):
        for column in range(side):
            for other in ((row + 1, column), (row, column + 1)):
                if max(other) < side:
                    pair = [names[row][column], names[other[0]][other[1]]]
                    tables["-".join(pair)] = (pair, torch.rand(2, 2, dtype=torch.float64))
    graph = FactorGraph.from_tables(tables)
    rows = {"x00": [0, 1, None], "x44": [1, 1, 0]}
    whole = marginals(graph)(evidence=rows)
    with switches.override(memory_limit=5_000):
        parts = marginals(graph)(evidence=rows)
    assert whole.plan.slices == 1 < parts.plan.slices
    torch.testing.assert_close(parts.log_evidence, whole.log_evidence, **EXACT)
    for name in whole:
        torch.testing.assert_close(parts.tables[name], whole.tables[name], **EXACT)
