"""Hypothesis strategy: random discrete programs, each with its factor graph written down beside it.

A program is drawn as a list of statements. It is then told twice: to sumout, as a program with ``sample``,
``plate`` and ``markov``, and to the oracles, as plain tables. Neither telling looks at the other.
"""

from __future__ import annotations

import itertools
import math
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from hypothesis import assume
from hypothesis import strategies as st

import sumout.distributions as dist
from oracles import Problem, Table
from sumout import Vindex, markov, plate, sample

Draw = st.DrawFn


@dataclass(frozen=True, eq=False)
class Site:
    """One discrete site: ``logits`` has the shape (plates it varies along..., states of parents..., states)."""

    name: str
    path: tuple[str, ...]
    varies: tuple[str, ...]
    parents: tuple[str, ...]
    size: int
    logits: torch.Tensor
    obs: torch.Tensor | None = None
    bernoulli: bool = False


@dataclass(frozen=True, eq=False)
class Program:
    """Statements in order: single sites, and chains of steps with a history."""

    plates: dict[str, int]
    statements: list[Site | tuple[int, list[list[Site]]]] = field(default_factory=list)

    @property
    def sites(self) -> list[Site]:
        found: list[Site] = []
        for each in self.statements:
            found += [each] if isinstance(each, Site) else itertools.chain.from_iterable(each[1])
        return found

    def __repr__(self) -> str:
        lines = [f"plates {self.plates}"]
        for each in self.statements:
            if isinstance(each, Site):
                lines.append(f"{each.name} | {each.parents} in {each.path} observed={each.obs is not None}")
            else:
                steps = [[(site.name, site.parents) for site in step] for step in each[1]]
                lines.append(f"markov(history={each[0]}): {steps} in {each[1][0][0].path}")
        return "\n".join(lines)

    # ------------------------------------------------------------------------------- told to sumout

    def __call__(self) -> None:
        values: dict[str, torch.Tensor] = {}
        depth = {name: site.path.index(name) for site in self.sites for name in site.path}
        made = {name: plate(name, self.plates[name], dim=-1 - depth[name]) for name in depth}
        for each in self.statements:
            if isinstance(each, Site):
                self._sample(each, values, made)
            else:
                history, steps = each
                for t in markov(range(len(steps)), history=history):
                    for site in steps[t]:
                        self._sample(site, values, made)

    def _sample(self, site: Site, values: dict[str, torch.Tensor], made: dict[str, plate]) -> None:
        with ExitStack() as entered:
            index: list[torch.Tensor] = []
            for depth, name in enumerate(site.path):
                elements = entered.enter_context(made[name])
                if name in site.varies:
                    index.append(elements.reshape(-1, *[1] * depth))
            index += [values[parent].long() for parent in site.parents]
            logits = Vindex(site.logits)[(*index, slice(None))] if index else site.logits
            if site.bernoulli:
                fn = dist.Bernoulli(logits=logits[..., 1] - logits[..., 0])
            else:
                fn = dist.Categorical(logits=logits)
            obs = site.obs
            if obs is not None:
                obs = obs.permute(tuple(reversed(range(obs.ndim)))).to(
                    torch.float64 if site.bernoulli else torch.long
                )
            values[site.name] = sample(site.name, fn, obs=obs)

    # ------------------------------------------------------------------------------- told to the oracles

    def problem(self) -> Problem:
        latent = {site.name: site for site in self.sites if site.obs is None}
        tables = []
        for site in self.sites:
            logs = site.logits - torch.logsumexp(site.logits, -1, keepdim=True)
            inputs: tuple[str, ...] = (*site.varies, *site.parents)
            if site.obs is None:
                tables.append(Table((*inputs, site.name), logs, frozenset(site.path)))
                continue
            cells = []
            for element in itertools.product(*(range(self.plates[name]) for name in site.path)):
                at = dict(zip(site.path, element, strict=True))
                cells.append(logs[tuple(at[name] for name in site.varies)][..., int(site.obs[element])])
            sizes = [self.plates[name] for name in site.path]
            data = torch.stack(cells).reshape((*sizes, *cells[0].shape))
            tables.append(Table((*site.path, *site.parents), data, frozenset(site.path)))
        return Problem(
            sizes={name: site.size for name, site in latent.items()},
            ordinals={name: frozenset(site.path) for name, site in latent.items()},
            plates={name: (size, 1.0) for name, size in self.plates.items()},
            tables=tables,
        )

    def parameters(self) -> list[torch.Tensor]:
        return [site.logits for site in self.sites]


@st.composite
def programs(draw: Draw, max_statements: int = 5, max_assignments: int = 3000) -> Program:
    """A random program: nested and sibling plates, chains of history 1 and 2, observed and latent sites."""
    plates: dict[str, int] = {}
    paths: list[tuple[str, ...]] = [()]
    for name in ["p", "q", "r"][: draw(st.integers(0, 3))]:
        plates[name] = draw(st.sampled_from([2, 3, 1]))
        paths.append((*draw(st.sampled_from(paths)), name))
    program = Program(plates)
    budget = max_assignments
    seen: list[Site] = []  # latent sites that later sites may depend on

    def site(name: str, path: tuple[str, ...], near: list[Site], size: int, observed: bool) -> Site:
        above = [each for each in seen if each.path == path[: len(each.path)]]
        parents = near + (draw(st.lists(st.sampled_from(above), unique=True, max_size=2)) if above else [])
        varies = tuple(each for each in path if draw(st.booleans()))
        shape = [*(plates[each] for each in varies), *(each.size for each in parents), size]
        numbers = draw(st.lists(st.integers(-20, 20), min_size=math.prod(shape), max_size=math.prod(shape)))
        logits = (torch.tensor(numbers, dtype=torch.float64) / 10).reshape(shape).requires_grad_()
        obs = None
        if observed:
            count = math.prod(plates[each] for each in path)
            states = draw(st.lists(st.integers(0, size - 1), min_size=count, max_size=count))
            obs = torch.tensor(states).reshape(tuple(plates[each] for each in path))
        names = tuple(each.name for each in parents)
        return Site(name, path, varies, names, size, logits, obs, size == 2 and draw(st.booleans()))

    for number in range(draw(st.integers(1, max_statements))):
        path, size = draw(st.sampled_from(paths)), draw(st.sampled_from([2, 3, 2, 1]))
        copies = math.prod(plates[each] for each in path)
        steps = draw(st.sampled_from([0, 0, 2, 3, 4]))
        cost = size ** (copies * max(steps, 1))
        if not steps:
            observed = cost > budget or draw(st.booleans())
            single = site(f"z{number}", path, [], size, observed)
            program.statements.append(single)
            if not observed:
                seen.append(single)
                budget //= cost
        elif cost <= budget:
            budget //= cost
            history = draw(st.sampled_from([1, 2]))
            emits = draw(st.booleans())
            chain: list[Site] = []
            rows = []
            for t in range(steps):
                hidden = site(f"x{number}_{t}", path, chain[-history:], size, False)
                chain.append(hidden)
                rows.append([hidden])
                if emits:
                    rows[-1].append(
                        site(f"y{number}_{t}", path, [hidden], draw(st.sampled_from([2, 3])), True)
                    )
            program.statements.append((history, rows))
    assume(program.statements)  # a chain that was too long for the budget may have been the only one
    return program
