"""From the engine's numbers to what a user of a site or a network expects: distributions and values."""

from __future__ import annotations

from typing import Any

from torch import Tensor

import sumout.distributions as dist
from sumout.distributions.families import innermost
from sumout.effects import Message, Trace
from sumout.effects.steps import is_lookback, names_in_loop, without_steps
from sumout.effects.trace import sample_sites, tensor_plates
from sumout.execute import Choice, Marginal
from sumout.factors import FactorGraph


def latent_sites(trace: Trace) -> dict[str, Message]:
    """The enumerated sites by the names of their variables; one of a vectorized chain stands for all its steps."""
    return {
        name: single
        for site in sample_sites(trace)
        if site.enum_dim is not None and not is_lookback(site)
        for single in (without_steps(site),)
        for name in names_in_loop(site)
    }


def graph_marginal(marginal: Marginal) -> Any:
    """A ``Categorical`` whose batch dimensions are the variable's plates in alphabetical order."""
    return dist.Categorical(probs=marginal.probs, validate_args=False)


def graph_state(graph: FactorGraph, name: str, choice: Choice) -> Tensor:
    """State indices whose dimensions are the variable's plates in alphabetical order."""
    plates = sorted(graph.variables[name].plates)
    return _placed(choice.states, choice.plates, {each: graph.plates[each].size for each in plates})


def site_marginal(site: Message, marginal: Marginal) -> Any:
    """The marginal of an enumerated site, of the site's own family where that family can express it.

    Bernoulli, Categorical and OneHotCategorical stay what they are; a support ``0, 1, ..., n`` gives a
    ``Categorical``; any other finite support an ``Empirical`` over the support.
    """
    frames = _frames(site)
    probs = _spread(marginal.probs, marginal.plates, frames)
    family = innermost(site.fn)
    if isinstance(family, dist.Bernoulli):
        return dist.Bernoulli(probs=probs[..., 1].clamp(max=1.0), validate_args=False)
    if isinstance(family, dist.OneHotCategorical):
        return dist.OneHotCategorical(probs=probs, validate_args=False)
    support = _support(site)
    if support.ndim == 1 and support.tolist() == list(range(len(support))):
        return dist.Categorical(probs=probs, validate_args=False)
    samples = support.expand(*probs.shape, *support.shape[1:])
    return dist.Empirical(samples, probs.log())


def site_value(site: Message, choice: Choice) -> Tensor:
    """Values of an enumerated site at the chosen states, with the plates' batch shape."""
    frames = _frames(site)
    names = tuple(frames[dim][0] for dim in sorted(frames))
    sizes = {frames[dim][0]: frames[dim][1] for dim in sorted(frames)}
    index = _spread(_placed(choice.states, choice.plates, sizes).unsqueeze(-1), names, frames).squeeze(-1)
    return _support(site)[index]


def _frames(site: Message) -> dict[int, tuple[str, int]]:
    """Names and sizes of a site's plates by tensor dimension."""
    return {dim: (frame.name, frame.size) for dim, frame in tensor_plates(site).items()}


def _support(site: Message) -> Tensor:
    """All values of a site, shape ``(states, *event_shape)``."""
    support: Tensor = site.fn.enumerate_support(expand=False)
    return support.reshape(support.shape[0], *site.fn.event_shape)


def _placed(index: Tensor, names: tuple[str, ...], sizes: dict[str, int]) -> Tensor:
    """Expands an index over some plates to all of ``sizes``, in that order."""
    shape = [size if each in names else 1 for each, size in sizes.items()]
    order = [names.index(each) for each in sizes if each in names]
    return index.permute(order).reshape(shape).expand(tuple(sizes.values()))


def _spread(x: Tensor, plates: tuple[str, ...], frames: dict[int, tuple[str, int]]) -> Tensor:
    """Moves named plates to their tensor dimensions; ``x`` has one dimension a plate, then one more."""
    if not frames:
        return x
    by_dim = sorted(frames)
    x = x.permute([*(plates.index(frames[dim][0]) for dim in by_dim), x.ndim - 1])
    shape = [frames[dim][1] if dim in frames else 1 for dim in range(by_dim[0], 0)]
    return x.reshape(*shape, x.shape[-1])
