"""What is asked, a graph or a program, beside all of its assignments written out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from posteriors import Posterior
from programs import Program
from strategies import to_problem
from stress.graphs import groups
from sumout.factors import FactorGraph


@dataclass(frozen=True, eq=False)
class Case:
    """A target and its posterior by brute force.

    Attributes:
        target: what the queries are given.
        posterior: every assignment and its weight, differentiable by ``leaves``.
        leaves: what gradients are taken by.
        groups: names that have joint tables.
        homes: for each variable its plates as the answers have them.
        seed: of all that is drawn.
    """

    target: FactorGraph | Callable[..., Any]
    posterior: Posterior
    leaves: Sequence[torch.Tensor]
    groups: Sequence[tuple[str, ...]]
    homes: dict[str, tuple[str, ...]]
    seed: int

    @cached_property
    def names(self) -> list[str]:
        return list(self.posterior.problem.sizes)

    @cached_property
    def possible(self) -> bool:
        return bool(self.posterior.log_z > -math.inf)

    @cached_property
    def log_joint(self) -> torch.Tensor:
        return self.posterior.log_joint.detach()

    @cached_property
    def tied(self) -> bool:
        """Whether two possible assignments are (nearly) equally probable, so that maxima have kinks."""
        logs = self.log_joint[self.log_joint > -math.inf].sort().values
        return bool((logs.diff() < 1e-6).any())

    def sizes(self, names: Sequence[str]) -> list[int]:
        return [self.posterior.problem.sizes[name] for name in names]

    def sorted_plates(self, names: Sequence[str], x: torch.Tensor, leading: int = 0) -> torch.Tensor:
        """An answer with the plates of some variables in the order of the oracle's: sorted by name."""
        home = max((self.homes[name] for name in names), key=len, default=())
        if any(not set(self.homes[name]) <= set(home) for name in names):  # Of a graph: they are sorted.
            return x
        order = [leading + home.index(plate) for plate in sorted(home)]
        rest = range(leading + len(home), x.ndim)
        return x.permute([*range(leading), *order, *rest])

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def numbers(self, like: torch.Tensor) -> torch.Tensor:
        """Random numbers of a shape, always the same."""
        return torch.randn(like.shape, generator=self.generator(), dtype=torch.float64)


def graph_case(graph: FactorGraph, seed: int) -> Case:
    """A graph whose tables want gradients."""
    tensors = {id(factor.data): factor.data for factor in graph.factors}
    leaf = {number: data.detach().clone().requires_grad_() for number, data in tensors.items()}
    factors = tuple([replace(factor, data=leaf[id(factor.data)]) for factor in graph.factors])
    tracked = FactorGraph(factors, graph.variables, graph.plates)
    homes = {name: tuple(sorted(variable.plates)) for name, variable in graph.variables.items()}
    return Case(
        tracked, Posterior(to_problem(tracked)), list(leaf.values()), groups(graph, seed, 5), homes, seed
    )


def plain(case: Case) -> Case:
    """The same graph without gradients, which queries answer in other ways."""
    graph = case.target
    assert isinstance(graph, FactorGraph)
    factors = tuple([replace(factor, data=factor.data.detach()) for factor in graph.factors])
    return replace(case, target=FactorGraph(factors, graph.variables, graph.plates), leaves=())


def program_case(program: Program, seed: int) -> Case:
    """A program whose logits want gradients."""
    latent = {site.name: site for site in program.sites if site.obs is None}
    homes = {name: tuple(reversed(site.path)) for name, site in latent.items()}
    posterior = Posterior(program.problem())
    nested = [
        (a, b)
        for a in latent
        for b in latent
        if a != b and latent[a].path == latent[b].path[: len(latent[a].path)]
    ]
    return Case(program, posterior, program.parameters(), nested[:4], homes, seed)
