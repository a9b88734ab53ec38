"""Mixtures over past discrete states replaced by one Gaussian: an approximation, made only where it is asked for.

In a switching linear dynamical system the state ``x[t]`` given ``z[0..t]`` is Gaussian, so that given the
observations it is a mixture with a component for each past. Delayed sites are taken in the order of the program; when
one is reached, those that nothing later depends on are integrated out exactly, for each joint value of the discrete
sites in sight. Discrete sites that nothing later depends on are then forgotten: the mixture over their values is
replaced by one Gaussian of the same mass, mean and covariance, for each joint value of those that are kept. Where
``z[t]`` is a Markov chain its last state is kept, which is the generalised pseudo-Bayes filter of order two; where
the ``z[t]`` are independent nothing is, which is that of order one. The last two steps are exact, and so is all if
the components that are merged are equal.

What is left is a factor for each step over the discrete sites of that step and of the one before. The discrete sites
themselves are then summed out exactly: in a chain their posteriors are given all observations, though later ones tell
of a site only what they tell of the state of the chain after it. Where no state is kept they tell nothing of it: its
posterior is that of the filter.

Source: Bar-Shalom and Li, *Estimation and Tracking* (1993), section 11.6; Kim, *Dynamic linear models with
Markov-switching* (1994); Murphy, *Switching Kalman filters* (1998); as expectation propagation's forward pass
(assumed-density filtering): Minka, *A family of algorithms for approximate Bayesian inference* (2001), chapter 3.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sumout.errors import ModelError
from sumout.lower.collapse.gaussian import GaussianFactor
from sumout.terms.gaussian import Quadratic, integrated

Names = tuple[str, ...]


class Table(NamedTuple):
    """Logarithms over discrete sites and plates; the first dimensions of ``data`` are those of ``names``."""

    names: Names
    data: Tensor


class Told(NamedTuple):
    """What the program says of discrete sites, after so many delayed ones."""

    after: int
    table: Table


class Stretch(NamedTuple):
    """The delayed sites between two merges, and their integral for each value of the discrete sites in sight."""

    sites: Names
    table: Table


class _Message(NamedTuple):
    """What is known of the delayed sites that later ones depend on, for each joint value of ``names``."""

    names: Names
    scope: Names
    quadratic: Quadratic


def matched(
    factors: Sequence[GaussianFactor],
    entries: Mapping[str, int],
    told: Sequence[Told],
    plates: Collection[str],
) -> list[Stretch]:
    """The factors of all stretches.

    Args:
        factors: of all sites.
        entries: the number of entries of each delayed site, in the order of the program.
        told: the densities of the discrete sites, and of what is observed of them alone. They tell which
            components of a mixture count; they are no part of the result.
        plates: dimensions whose elements are problems of their own.

    Raises:
        ModelError: if an integral diverges.
    """
    waiting = list(factors)
    message = _Message((), (), _one(factors[0].quadratic.form))
    mass = Table((), factors[0].quadratic.rest.new_zeros(()))
    found: list[Stretch] = []
    stretch: list[str] = []
    for number, name in enumerate(entries):
        stretch.append(name)
        live = {*message.scope, name}
        ready = [each for each in waiting if live.issuperset(each.scope)]
        waiting = [each for each in waiting if not live.issuperset(each.scope)]
        later = {each for factor in waiting for each in factor.scope}
        message = _reduced(message, ready, entries, later, name)
        here = [each.table for each in told if each.after <= number]
        told = [each for each in told if each.after > number]
        mass = _product([mass, *here])
        needed = {*plates, *[each for factor in waiting for each in factor.names]}
        needed.update([each for one in told for each in one.table.names])
        gone = [each for each in message.names if each not in needed]
        if not gone or not waiting:
            continue
        total, message = _normalized(message, entries)
        found.append(Stretch(tuple(stretch), total))
        mass = _product([mass, total])
        message = _merged(message, mass, gone)
        mass = _summed(
            mass, [each for each in mass.names if each not in needed and each not in message.names]
        )
        stretch = []
    total, _ = _normalized(message, entries)
    found.append(Stretch(tuple(stretch), total))
    return found


def _one(like: Tensor) -> Quadratic:
    return Quadratic(like.new_zeros(1, 1), like.new_zeros(()))


def _aligned(data: Tensor, names: Sequence[str], to: Sequence[str], tail: int) -> Tensor:
    """The tensor with the dimensions ``to``, of size one where it does not vary, before its last ``tail``."""
    order = [names.index(each) for each in to if each in names]
    turned = data.permute([*order, *range(len(names), data.ndim)])
    shape = [data.shape[names.index(each)] if each in names else 1 for each in to]
    return turned.reshape(shape + list(data.shape[data.ndim - tail :] if tail else ()))


def _union(names: Iterable[Names]) -> Names:
    return tuple(dict.fromkeys([each for part in names for each in part]))


def _product(tables: Sequence[Table]) -> Table:
    names = _union([each.names for each in tables])
    total = _aligned(tables[0].data, tables[0].names, names, 0)
    for each in tables[1:]:
        total = total + _aligned(each.data, each.names, names, 0)
    return Table(names, total)


def _summed(table: Table, gone: Collection[str]) -> Table:
    if not gone:
        return table
    places = [table.names.index(each) for each in gone]
    return Table(tuple([each for each in table.names if each not in gone]), table.data.logsumexp(places))


def _placed(form: Tensor, scope: Sequence[str], to: Sequence[str], entries: Mapping[str, int]) -> Tensor:
    """A form with rows for all delayed sites of ``to``, zero where it does not depend on one."""
    starts, stop = {}, 1
    for name in to:
        starts[name] = stop
        stop += entries[name]
    index = [0, *[place for name in scope for place in range(starts[name], starts[name] + entries[name])]]
    chosen = torch.zeros(len(index), stop, dtype=form.dtype, device=form.device)
    chosen[range(len(index)), index] = 1.0
    return chosen.mT @ form @ chosen


def _reduced(
    message: _Message,
    factors: Sequence[GaussianFactor],
    entries: Mapping[str, int],
    later: set[str],
    new: str,
) -> _Message:
    """The message times factors, with the sites integrated out that nothing later depends on; but not the new one."""
    scope = _union([message.scope, *[each.scope for each in factors], (new,)])
    kept = [each for each in scope if each in later or each == new]
    gone = [each for each in scope if each not in kept]
    order = [*kept, *gone]
    parts = [message, *[_Message(each.names, each.scope, each.quadratic) for each in factors]]
    names = _union([each.names for each in parts])
    form: Tensor | float = 0.0
    rest: Tensor | float = 0.0
    for each in parts:
        form = form + _aligned(_placed(each.quadratic.form, each.scope, order, entries), each.names, names, 2)
        rest = rest + _aligned(each.quadratic.rest, each.names, names, 0)
    assert isinstance(form, Tensor)
    assert isinstance(rest, Tensor)
    if gone:
        form, gain = _integrated(form, sum([entries[each] for each in gone]), gone)
        rest = rest + gain
    return _Message(names, tuple(kept), Quadratic(form, rest))


def _integrated(form: Tensor, gone: int, names: Iterable[str]) -> tuple[Tensor, Tensor]:
    try:
        return integrated(form, gone)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise ModelError(
            f"The integral over {', '.join(map(repr, names))} diverges or is too close to diverging for its precision. "
            "Give the sites proper priors, and noise that is not zero."
        ) from error


def _normalized(message: _Message, entries: Mapping[str, int]) -> tuple[Table, _Message]:
    """The integral of a message, and the message as a density."""
    form, rest = message.quadratic
    size = sum([entries[each] for each in message.scope])
    if not size:
        return Table(message.names, rest - 0.5 * form[..., 0, 0]), message
    left, gain = _integrated(form, size, message.scope)
    total = rest + gain - 0.5 * left[..., 0, 0]
    return Table(message.names, total), message._replace(quadratic=Quadratic(form, rest - total))


def _merged(message: _Message, mass: Table, gone: Sequence[str]) -> _Message:
    """For each joint value of the names that are kept one Gaussian of the mixture's mean and covariance."""
    form, _ = message.quadratic
    kept = tuple([each for each in message.names if each not in gone])
    logs = _summed(mass, [each for each in mass.names if each not in message.names])
    order = (*kept, *gone)
    full = [form.shape[message.names.index(each)] for each in order]
    logits = _aligned(logs.data, logs.names, order, 0).expand(full).flatten(len(kept))
    form = _aligned(form, message.names, order, 2).expand([*full, *form.shape[-2:]])
    form = form.flatten(len(kept), len(order) - 1)
    root = torch.linalg.cholesky(form[..., 1:, 1:])
    covariance = torch.cholesky_inverse(root)
    mean = -(covariance @ form[..., 1:, :1]).squeeze(-1)
    weights = _weights(logits)
    center = (weights.unsqueeze(-1) * mean).sum(-2)
    apart = mean - center.unsqueeze(-2)
    spread = covariance + apart.unsqueeze(-1) * apart.unsqueeze(-2)
    quadratic = _density(center, (weights[..., None, None] * spread).sum(-3))
    return _Message(kept, message.scope, quadratic)


def _weights(logits: Tensor) -> Tensor:
    """Probabilities along the last dimension; equal ones where nothing is possible, which then counts for nothing."""
    impossible = (logits == -math.inf).all(-1, keepdim=True)
    return logits.masked_fill(impossible, 0.0).softmax(-1)


def _density(mean: Tensor, covariance: Tensor) -> Quadratic:
    """A normal density as a factor."""
    size = mean.shape[-1]
    root = torch.linalg.cholesky(covariance)
    eye = torch.eye(size, dtype=mean.dtype, device=mean.device)
    white = torch.linalg.solve_triangular(
        root, torch.cat([-mean.unsqueeze(-1), eye.expand_as(root)], -1), upper=False
    )
    log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return Quadratic(white.mT @ white, -log_det - 0.5 * size * math.log(2 * math.pi))
