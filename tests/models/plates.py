"""Plates: nested, crossed, side by side, subsampled."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.language import Program, at, model, numbers, real, simplex, unit, vector


@model(
    latent=("a", "b", "c"),
    observed=("x",),
    discrete=("a", "b", "c"),
    max_plate_nesting=2,
    params=("top", "middle", "bottom", "locs"),
)
def three_levels(ppl: Any) -> Program:
    """A variable at the top, one in a plate, one in a plate of that."""
    data = 4.0 * numbers(2, 3, turn=1.4) - 2.0

    def program() -> Any:
        middle, bottom = simplex(ppl, "middle", 2, 2), simplex(ppl, "bottom", 2, 2)
        locs = real(ppl, "locs", 2, 2)
        a = ppl.sample("a", ppl.dist.Categorical(simplex(ppl, "top", 2)))
        with ppl.plate("outer", 3, dim=-1):
            b = ppl.sample("b", ppl.dist.Categorical(at(middle, a)))
            with ppl.plate("inner", 2, dim=-2):
                c = ppl.sample("c", ppl.dist.Categorical(at(bottom, b)))
                ppl.sample("x", ppl.dist.Normal(at(locs, b, c), 1.0), obs=data)

    return program


@model(
    latent=("top", "left", "right"),
    observed=("x", "y"),
    discrete=("top", "left", "right"),
    max_plate_nesting=1,
    params=("top", "left", "right", "locs"),
)
def sibling_plates(ppl: Any) -> Program:
    """Two plates side by side that share what is above them."""

    def program() -> Any:
        lefts, rights = simplex(ppl, "left", 3, 2), simplex(ppl, "right", 3, 2)
        locs = real(ppl, "locs", 2)
        top = ppl.sample("top", ppl.dist.Categorical(simplex(ppl, "top", 3)))
        with ppl.plate("lefts", 3):
            left = ppl.sample("left", ppl.dist.Categorical(at(lefts, top)))
            ppl.sample("x", ppl.dist.Normal(at(locs, left), 1.0), obs=vector(0.1, 1.2, -0.8))
        with ppl.plate("rights", 2):
            right = ppl.sample("right", ppl.dist.Categorical(at(rights, top)))
            ppl.sample("y", ppl.dist.Normal(at(locs, right), 1.0), obs=vector(0.7, -1.5))

    return program


@model(
    latent=("row", "column"),
    observed=("x",),
    discrete=("row", "column"),
    max_plate_nesting=2,
    params=("rows", "columns", "rates"),
    pyro="refuses",
)
def crossed_plates(ppl: Any) -> Program:
    """Clusters of rows and clusters of columns of one matrix: the plates cross, and Pyro says no."""
    matrix = (numbers(3, 2, turn=2.0) > 0.5).double()

    def program() -> Any:
        rates, row_probs, column_probs = (
            unit(ppl, "rates", 2, 2),
            simplex(ppl, "rows", 2),
            simplex(ppl, "columns", 2),
        )
        rows, columns = ppl.plate("rows", 3, dim=-2), ppl.plate("columns", 2, dim=-1)
        with rows:
            row = ppl.sample("row", ppl.dist.Categorical(row_probs))
        with columns:
            column = ppl.sample("column", ppl.dist.Categorical(column_probs))
        with rows, columns:
            ppl.sample("x", ppl.dist.Bernoulli(at(rates, row, column)), obs=matrix)

    return program


@model(
    latent=("row", "column", "cell"),
    observed=("x",),
    discrete=("row", "column", "cell"),
    max_plate_nesting=2,
    params=("rows", "columns", "cells", "locs"),
    pyro="refuses",
)
def crossed_with_cells(ppl: Any) -> Program:
    """Crossed plates with a class in each cell too."""
    matrix = 4.0 * numbers(2, 3, turn=0.8) - 2.0

    def program() -> Any:
        cells, locs = simplex(ppl, "cells", 2, 2, 2), real(ppl, "locs", 2)
        row_probs, column_probs = simplex(ppl, "rows", 2), simplex(ppl, "columns", 2)
        rows, columns = ppl.plate("rows", 2, dim=-2), ppl.plate("columns", 3, dim=-1)
        with rows:
            row = ppl.sample("row", ppl.dist.Categorical(row_probs))
        with columns:
            column = ppl.sample("column", ppl.dist.Categorical(column_probs))
        with rows, columns:
            cell = ppl.sample("cell", ppl.dist.Categorical(at(cells, row, column)))
            ppl.sample("x", ppl.dist.Normal(at(locs, cell), 1.0), obs=matrix)

    return program


@model(
    latent=("style", "ability", "difficulty"),
    observed=("right",),
    discrete=("style", "ability", "difficulty"),
    max_plate_nesting=2,
    params=("style", "ability", "difficulty", "rates"),
    pyro="refuses",
)
def item_response(ppl: Any) -> Program:
    """Students of two abilities, tasks of two difficulties, and a class that all are in."""
    right = (numbers(3, 3, turn=1.2) > 0.4).double()

    def program() -> Any:
        rates, abilities = unit(ppl, "rates", 2, 2), simplex(ppl, "ability", 2, 2)
        difficulties = simplex(ppl, "difficulty", 2)
        students, tasks = ppl.plate("students", 3, dim=-1), ppl.plate("tasks", 3, dim=-2)
        style = ppl.sample("style", ppl.dist.Categorical(simplex(ppl, "style", 2)))
        with students:
            ability = ppl.sample("ability", ppl.dist.Categorical(at(abilities, style)))
        with tasks:
            difficulty = ppl.sample("difficulty", ppl.dist.Categorical(difficulties))
            with students:
                ppl.sample("right", ppl.dist.Bernoulli(at(rates, ability, difficulty)), obs=right)

    return program


@model(
    latent=("shared", "group_0", "group_1"),
    observed=("x_0", "x_1"),
    discrete=("shared", "group_0", "group_1"),
    max_plate_nesting=1,
    params=("shared", "table", "locs"),
)
def loop_of_plates(ppl: Any) -> Program:
    """A plate that is a loop, and in each turn a plate of its own length."""
    data = [vector(0.3, -0.7), vector(1.9, 0.2, -1.4)]

    def program() -> Any:
        table, locs = simplex(ppl, "table", 2, 2), real(ppl, "locs", 2)
        shared = ppl.sample("shared", ppl.dist.Categorical(simplex(ppl, "shared", 2)))
        for i in ppl.plate("groups", 2):
            with ppl.plate(f"members_{i}", len(data[i])):
                group = ppl.sample(f"group_{i}", ppl.dist.Categorical(at(table, shared)))
                ppl.sample(f"x_{i}", ppl.dist.Normal(at(locs, group), 1.0), obs=data[i])

    return program


@model(
    latent=("a", "b", "c"),
    observed=("x", "y"),
    discrete=("a", "b", "c"),
    max_plate_nesting=2,
    params=("a", "b", "c", "locs"),
)
def branches_of_plates(ppl: Any) -> Program:
    """Below one plate two others, each with a class of its own."""
    x, y = 4.0 * numbers(2, 2, turn=1.5) - 2.0, (numbers(3, 2, turn=0.4) > 0.5).double()

    def program() -> Any:
        stems, bs, cs = simplex(ppl, "a", 2), simplex(ppl, "b", 2, 2), unit(ppl, "c", 2)
        locs = real(ppl, "locs", 2)
        with ppl.plate("stems", 2, dim=-1):
            a = ppl.sample("a", ppl.dist.Categorical(stems))
            with ppl.plate("left", 2, dim=-2):
                b = ppl.sample("b", ppl.dist.Categorical(at(bs, a)))
                ppl.sample("x", ppl.dist.Normal(at(locs, b), 1.0), obs=x)
            with ppl.plate("right", 3, dim=-2):
                c = ppl.sample("c", ppl.dist.Bernoulli(at(cs, a)))
                ppl.sample("y", ppl.dist.Bernoulli(0.2 + 0.6 * c), obs=y)

    return program


@model(
    latent=("z",),
    observed=("x",),
    discrete=("z",),
    max_plate_nesting=2,
    params=("weights", "rates"),
)
def binomial_mixture(ppl: Any) -> Program:
    """Successes in as many tries as each row had, the rates by class and column."""
    tries = vector(4.0, 7.0, 5.0)[:, None]
    wins = torch.tensor([[1, 3], [6, 0], [2, 5]]).double()

    def program() -> Any:
        weights, rates = simplex(ppl, "weights", 2), unit(ppl, "rates", 2, 2)
        with ppl.plate("rows", 3, dim=-2):
            z = ppl.sample("z", ppl.dist.Categorical(weights))
            with ppl.plate("columns", 2, dim=-1) as column:
                ppl.sample("x", ppl.dist.Binomial(tries, at(rates, z, column)), obs=wins)

    return program


SEEN = torch.tensor([4, 0, 3])
VALUES = vector(0.1, 1.2, -0.3, 0.8, 0.4)


def _normals(locs: Tensor, points: Tensor) -> Tensor:
    """Log-densities with spread 1, shape (locs, points)."""
    return torch.distributions.Normal(locs[:, None], 1.0).log_prob(points)


@model(
    latent=("style",),
    observed=("x",),
    discrete=("style",),
    max_plate_nesting=1,
    params=("style", "locs"),
    evidence=lambda params: torch.logsumexp(
        params["style"].log() + 5 / 3 * _normals(params["locs"], VALUES[SEEN]).sum(-1), 0
    ),
    pyro="refuses",
)
def subsampled_under_a_variable(ppl: Any) -> Program:
    """Three of five data are looked at, all of which depend on one variable."""

    def program() -> Any:
        styles, locs = simplex(ppl, "style", 2), real(ppl, "locs", 2)
        style = ppl.sample("style", ppl.dist.Categorical(styles))
        with ppl.plate("data", len(VALUES), subsample=SEEN) as indices:
            ppl.sample("x", ppl.dist.Normal(at(locs, style), 1.0), obs=VALUES[indices])

    return program


def _locals_under_a_variable(params: dict[str, Tensor]) -> Tensor:
    each = torch.logsumexp(params["table"].log()[..., None] + _normals(params["locs"], VALUES[SEEN]), 1)
    return torch.logsumexp(params["style"].log() + 5 / 3 * each.sum(-1), 0)


@model(
    latent=("style", "z"),
    observed=("x",),
    discrete=("style", "z"),
    max_plate_nesting=1,
    params=("style", "table", "locs"),
    evidence=_locals_under_a_variable,
    pyro="refuses",
)
def subsampled_classes_under_a_variable(ppl: Any) -> Program:
    """The same with a class for each datum that depends on the variable above."""

    def program() -> Any:
        styles, table = simplex(ppl, "style", 2), simplex(ppl, "table", 2, 2)
        locs = real(ppl, "locs", 2)
        style = ppl.sample("style", ppl.dist.Categorical(styles))
        with ppl.plate("data", len(VALUES), subsample=SEEN) as indices:
            z = ppl.sample("z", ppl.dist.Categorical(at(table, style)))
            ppl.sample("x", ppl.dist.Normal(at(locs, z), 1.0), obs=VALUES[indices])

    return program


TRIES, WINS = vector(2.0, 4.0, 3.0), vector(1.0, 2.0, 0.0)


@model(
    latent=("passed",),
    observed=("won",),
    discrete=("passed",),
    max_plate_nesting=1,
    params=("rates",),
    evidence=lambda params: torch.distributions.Binomial(TRIES, params["rates"].prod()).log_prob(WINS).sum(),
    pyro="refuses",
)
def two_stages(ppl: Any) -> Program:
    """How many of a number of tries pass a first stage, another number in each row, and of those a second."""

    def program() -> Any:
        rates = unit(ppl, "rates", 2)
        with ppl.plate("rows", 3):
            passed = ppl.sample("passed", ppl.dist.Binomial(TRIES, rates[0]))
            # Of values that are impossible the support says nothing, so that they are not checked against it.
            ppl.sample("won", ppl.dist.Binomial(passed, rates[1], validate_args=False), obs=WINS)

    return program


@model(
    latent=("on",),
    observed=("x",),
    sequential=("on",),
    max_plate_nesting=1,
    params=("rates", "height"),
    elementwise=False,
    pyro="refuses",
)
def sum_over_a_plate(ppl: Any) -> Program:
    """What is seen is how many of a plate are on: with a run for each way in which they can be."""

    def program() -> Any:
        rates, height = unit(ppl, "rates", 3), real(ppl, "height")
        with ppl.plate("switches", 3):
            on = ppl.sample("on", ppl.dist.Bernoulli(rates), infer={"enumerate": "sequential"})
        ppl.sample("x", ppl.dist.Normal(height * on.sum(-1), 1.0), obs=vector(1.4)[0])

    return program


@model(
    latent=("style", "row", "column", "other", "more"),
    observed=("x", "y"),
    discrete=("style", "row", "column", "other", "more"),
    max_plate_nesting=2,
    params=("style", "rates", "locs"),
    pyro="refuses",
)
def dims_used_again(ppl: Any) -> Program:
    """Two pairs of crossed plates that take the same dims under other names, and a variable above all."""
    first, second = numbers(2, 2), numbers(2, 2, turn=2.0)

    def program() -> Any:
        rates, locs = unit(ppl, "rates", 4, 2), real(ppl, "locs", 2, 2)
        style = ppl.sample("style", ppl.dist.Bernoulli(unit(ppl, "style")))
        rows, columns = ppl.plate("rows", 2, dim=-2), ppl.plate("columns", 2, dim=-1)
        with rows:
            row = ppl.sample("row", ppl.dist.Bernoulli(at(rates[0], style)))
        with columns:
            column = ppl.sample("column", ppl.dist.Bernoulli(at(rates[1], style)))
        with rows, columns:
            ppl.sample("x", ppl.dist.Normal(at(locs, row, column), 1.0), obs=first)
        others, mores = ppl.plate("others", 2, dim=-2), ppl.plate("mores", 2, dim=-1)
        with others:
            other = ppl.sample("other", ppl.dist.Bernoulli(at(rates[2], style)))
        with mores:
            more = ppl.sample("more", ppl.dist.Bernoulli(at(rates[3], style)))
        with others, mores:
            ppl.sample("y", ppl.dist.Normal(at(locs, other, more), 1.0), obs=second)

    return program


@model(
    latent=("z", "w"),
    observed=("x", "y"),
    discrete=("z", "w"),
    max_plate_nesting=1,
    params=("rate", "rates"),
    pyro="differs",
    ours="refuses",
)
def dims_shared(ppl: Any) -> Program:
    """Two plates along one dim, the second's site a function of the first's: by chance of the dim, not by name."""

    def program() -> Any:
        rate, rates = unit(ppl, "rate"), unit(ppl, "rates", 2)
        with ppl.plate("first", 3, dim=-1):
            z = ppl.sample("z", ppl.dist.Bernoulli(rate))
            ppl.sample("x", ppl.dist.Normal(z, 1.0), obs=vector(0.1, 1.2, -0.7))
        with ppl.plate("second", 3, dim=-1):
            w = ppl.sample("w", ppl.dist.Bernoulli(at(rates, z)))
            ppl.sample("y", ppl.dist.Normal(w, 1.0), obs=vector(0.5, 0.2, 1.7))

    return program
