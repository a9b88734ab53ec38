"""Every query on random graphs beside a count of all assignments: in all orders, in slices, over two processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing

import oracles
from strategies import to_problem
from stress import checks
from stress.cases import Case, graph_case, plain
from stress.graphs import described, random_graph
from sumout import infer
from sumout.errors import MemoryLimitError, ModelError
from sumout.factors import FactorGraph
from sumout.infer.solving.spread import spread
from sumout.plan import ORDERS, SEARCHES, planning
from sumout.settings import settings

BLOCK = 25
"""Graphs of one test."""

Way = Callable[[], AbstractContextManager[object]]


@pytest.fixture(autouse=True)
def _in_float64() -> Iterator[None]:
    """A graph without factors has no dtype but torch's own."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def problems(
    case: Case,
    way: Way = nullcontext,
    refused: list[str] | None = None,
    wanted: Sequence[Callable[[Case], None]] = checks.CHECKS,
) -> list[str]:
    """What checks find wrong; ``refused`` gets the names of those that did not fit into memory."""
    found = []
    for check in wanted if case.possible else (checks.impossible,):
        try:
            with way():
                check(case)
        except MemoryLimitError:
            if refused is None:
                raise
            refused.append(check.__name__)
        except Exception as error:
            found.append(f"{check.__name__} of graph {case.seed}: {type(error).__name__}: {error}")
    return found


def ordered(order: str) -> Way:
    seconds = 0.005 if order in SEARCHES else 0.0
    return lambda: planning(orders=(order,), time_limit=seconds)


WAYS: tuple[Way, ...] = (
    nullcontext,
    *(ordered(each) for each in (*ORDERS, *SEARCHES) if each != "cotengra"),  # An extra.
)


@pytest.mark.parametrize("block", range(20))
def test_every_query_in_every_order(block: int) -> None:
    """Of 500 graphs: as they are, and with gradients wanted in one order after the other."""
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        graph = random_graph(seed)
        case = graph_case(graph, seed)
        found = problems(plain(case), wanted=checks.WITHOUT_GRADIENTS)
        found += problems(case, WAYS[seed % len(WAYS)])
        assert not found, "\n".join([*found, described(graph)])


@pytest.mark.parametrize("block", range(3))
def test_every_query_in_slices(block: int) -> None:
    """Under a memory limit that is too small for many of the graphs."""
    sliced = 0
    for seed in range(1000 + block * BLOCK, 1000 + (block + 1) * BLOCK):
        graph = random_graph(seed)
        case = graph_case(graph, seed)
        refused: list[str] = []
        limit = (800, 1200, 1600, 2400)[seed % 4]
        found = problems(case, lambda limit=limit: settings.override(memory_limit=limit), refused)  # type: ignore[misc]
        assert not found, "\n".join([*found, described(graph)])
        if case.possible and "marginals" not in refused:
            with settings.override(memory_limit=limit):
                sliced += infer.marginals(case.target)().plan.slices > 1
    assert sliced >= 4


@pytest.mark.parametrize("block", range(3))
def test_powers(block: int) -> None:
    """Graphs with scales: the evidence, its derivatives and all marginals; the rest has no meaning and is refused."""
    for seed in range(2000 + block * BLOCK, 2000 + (block + 1) * BLOCK):
        graph = random_graph(seed, assignments=120, scales=True, far=False)
        case = graph_case(graph, seed)
        tracked = case.target
        assert isinstance(tracked, FactorGraph)
        problem = to_problem(tracked)
        probes = {
            name: torch.zeros(
                *(graph.plates[plate].size for plate in sorted(variable.plates)), variable.size
            ).requires_grad_()
            for name, variable in graph.variables.items()
        }
        scale_of = {name: table.scale for table in problem.tables for name in table.inputs}
        extra = [
            oracles.Table(
                (*sorted(graph.variables[name].plates), name),
                probe,
                graph.variables[name].plates,
                scale_of.get(name, 1.0),
            )
            for name, probe in probes.items()
        ]
        expected = oracles.scaled_log_z(replace(problem, tables=(*problem.tables, *extra)))
        value = infer.log_evidence(tracked)()
        checks.same(value, expected)
        zeros = any((factor.data == -torch.inf).any() for factor in graph.factors)
        if value == -torch.inf or zeros:  # The oracle's derivatives are NaN at zeros.
            continue
        if graph.factors:
            checks.same_gradients(case, [value], [expected])
        answer = infer.marginals(tracked)()
        for name, probe in probes.items():
            (weights,) = torch.autograd.grad(expected, probe, retain_graph=True)
            checks.same(answer.tables[name], weights / weights.sum(-1, keepdim=True))
        if problem.scaled():
            for query in (
                infer.entropy(tracked),
                infer.max_marginals(tracked),
                infer.k_best(tracked, 2),
                *(infer.marginal_map(tracked, name) for name in list(probes)[:1]),
            ):
                with pytest.raises(ModelError, match="power"):
                    query()


@pytest.mark.parametrize("block", range(2))
def test_float32(block: int) -> None:
    """The same answers in single precision, where all numbers are near one."""
    for seed in range(3000 + block * BLOCK, 3000 + (block + 1) * BLOCK):
        graph = random_graph(seed, far=False)
        factors = tuple([replace(factor, data=factor.data.float()) for factor in graph.factors])
        single = FactorGraph(factors, graph.variables, graph.plates)
        case = graph_case(graph, seed)
        if not case.possible or not graph.factors:
            continue
        near = {"rtol": 2e-5, "atol": 2e-4, "check_dtype": False}
        answer = infer.marginals(single)()
        assert answer.log_evidence.dtype == torch.float32
        torch.testing.assert_close(answer.log_evidence, case.posterior.log_z.detach(), **near)
        for name in case.names:
            torch.testing.assert_close(answer.tables[name], case.posterior.joint([name]).detach(), **near)
        torch.testing.assert_close(infer.map_assignment(single)().log_prob, case.log_joint.max(), **near)
        torch.testing.assert_close(
            infer.entropy(single)(), checks.entropy_of(case.posterior.weights.detach(), 1), **near
        )
        drawn = infer.posterior_samples(single, 20)()
        if case.names:
            joint = case.log_joint[checks.rows_of(case, dict(drawn))]
            torch.testing.assert_close(drawn.log_joint, joint, **near)


def work(rank: int, folder: str, seeds: list[int]) -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    found, slices = [], []
    for seed in seeds:
        case = graph_case(random_graph(seed), seed)
        found += problems(case, spread)
        if case.possible:
            with spread():
                slices.append(infer.marginals(case.target)().plan.slices)
    torch.distributed.destroy_process_group()
    torch.save((found, slices), f"{folder}/{rank}.pt")


def test_every_query_over_two_processes(tmp_path: Path) -> None:
    arguments = (str(tmp_path), list(range(4000, 4024)))
    torch.multiprocessing.start_processes(work, arguments, nprocs=2, start_method="spawn")
    for rank in range(2):
        found, slices = torch.load(tmp_path / f"{rank}.pt")
        assert not found, "\n".join(found)
        assert sum(each > 1 for each in slices) > 10
