"""What stands for a site's distribution where the site is enumerated: all its values, or samples.

Samples are drawn as in tensor Monte Carlo (Aitchison, "Tensor Monte Carlo: particle methods for the GPU era",
NeurIPS 2019): each site has ``num_samples`` of them along a dimension of its own, and all combinations of the
samples of different sites are scored. How a site is drawn where its distribution has one batch element for each
sample of the sites that it depends on, its parents, is said by ``infer["tmc"]``:

=============  ===================================================================================
``diagonal``   sample ``j`` is drawn given sample ``j`` of every parent
``mixture``    each sample is drawn given samples of the parents that are chosen uniformly for it
=============  ===================================================================================

With ``infer["expand"]`` there are ``num_samples`` for each combination of the parents' samples instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sumout.distributions.families import innermost
from sumout.effects.message import Message
from sumout.errors import EnumerationError

DIAGONAL, MIXTURE = "diagonal", "mixture"


def enumerate_site(msg: Message) -> Tensor:
    """All values of a site's distribution, or samples where ``infer`` asks for ``num_samples``.

    Args:
        msg: a sample site; ``fn``, ``infer`` and ``cond_indep_stack`` are read.

    Returns:
        A tensor of shape ``(number, *batch_shape, *event_shape)``. All values have ones in the place of the batch
        shape, unless ``infer["expand"]``; samples have ones along the dimensions that are no plate's.

    Raises:
        EnumerationError: if all values are wanted and they are not finitely many or differ along the batch; if
            ``infer`` asks for samples in a way that does not exist.

    >>> import sumout.distributions as dist
    >>> enumerate_site(Message(type="sample", name="z", fn=dist.Bernoulli(torch.tensor([0.2, 0.9]))))
    tensor([[0.],
            [1.]])
    """
    if msg.infer.get("num_samples") is not None:
        return samples(msg)
    return finite_support(msg.fn, msg.name, msg.infer.get("expand", False))


def finite_support(fn: Any, name: str | None, expand: bool) -> Tensor:
    """All values of a distribution along a new leftmost dimension.

    Args:
        fn: the distribution of site ``name``.
        expand: whether the values fill the batch shape, or have ones in its place.

    Raises:
        EnumerationError: if they are not finitely many, or not the same for all of the batch.
    """
    try:
        if not fn.has_enumerate_support:
            raise NotImplementedError
        support: Tensor = fn.enumerate_support(expand=expand)
    except NotImplementedError as error:
        reason = f" ({error})" if str(error) else ""
        raise EnumerationError(
            f"Site {name!r} cannot be enumerated: {type(innermost(fn)).__name__} has no finite support that is the "
            f"same for all of its batch{reason}. Observe the site, cut a count off (infer={{'truncate': 1e-9}}), or "
            "take the mark infer={'enumerate': 'parallel'} away."
        ) from error
    return support


def samples(msg: Message) -> Tensor:
    """Samples of a site along a new leftmost dimension; see the top of this file."""
    infer, fn = msg.infer, msg.fn
    count = infer["num_samples"]
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise EnumerationError(
            f"Site {msg.name!r} asks for num_samples={count!r}; it is a positive integer. Leave it out to enumerate "
            "all values."
        )
    if "_undrawable" in infer:
        raise EnumerationError(
            f"Site {msg.name!r} stands for many steps of a chain at once, which cannot be drawn, as each depends on "
            "the one before. Enumerate it exactly (no num_samples), or loop: markov without dim."
        )
    strategy = infer.get("tmc", DIAGONAL)
    if strategy not in (DIAGONAL, MIXTURE):
        raise EnumerationError(f"Site {msg.name!r} has tmc={strategy!r}; it may be 'diagonal' or 'mixture'.")
    parents = [] if infer.get("expand") else _parents(msg)
    if not parents:
        drawn: Tensor = fn(sample_shape=torch.Size([count]))
        return drawn
    thinned = _diagonal(msg, count, parents) if strategy == DIAGONAL else _mixture(fn, count, parents)
    rest = [1 if place in parents else size for place, size in enumerate(fn.batch_shape)]
    return thinned.reshape(count, *rest, *fn.event_shape)


def _parents(msg: Message) -> list[int]:
    """The places in the batch shape along which the distribution varies though no plate lies there."""
    plates = {frame.dim for frame in msg.cond_indep_stack}
    shape = msg.fn.batch_shape
    return [place for place, size in enumerate(shape) if size > 1 and place - len(shape) not in plates]


def _diagonal(msg: Message, count: int, parents: Sequence[int]) -> Tensor:
    fn = msg.fn
    sizes = [fn.batch_shape[place] for place in parents]
    if any(size != count for size in sizes):
        raise EnumerationError(
            f"Site {msg.name!r} has num_samples={count} and depends on sites that have {sizes} samples or values "
            f"(its batch shape is {tuple(fn.batch_shape)}). With tmc='diagonal' the numbers are equal; use "
            "'mixture' otherwise. A dim that is no enumerated site's is declared with a plate or .to_event()."
        )
    # One draw for each combination of the parents' samples; those on the diagonal are independent.
    of_each = fn().movedim(list(parents), list(range(len(parents))))
    at = (torch.arange(count, device=of_each.device),) * len(parents)
    picked: Tensor = of_each[at]
    return picked


def _mixture(fn: Any, count: int, parents: Sequence[int]) -> Tensor:
    drawn = fn(sample_shape=torch.Size([count]))
    of_each = drawn.movedim([1 + place for place in parents], list(range(1, 1 + len(parents))))
    chosen = [torch.randint(fn.batch_shape[place], (count,), device=drawn.device) for place in parents]
    each_once = torch.arange(count, device=drawn.device)
    at = (each_once, *chosen)
    picked: Tensor = of_each[at]
    return picked
