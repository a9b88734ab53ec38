"""A prior and a likelihood that is conjugate to it, as the posterior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sumout.distributions.families import is_distribution
from sumout.effects import get_mask
from sumout.effects.primitives.sample import sample
from sumout.errors import ModelError
from sumout.infer.reparam.reparam import Reparam, ReparamMessage, ReparamResult, determined


class ConjugateReparam(Reparam):
    """Draws ``z`` from its prior times a conjugate likelihood, normalized, and weights it so that the joint density
    of the program stays: with prior ``p(z)``, likelihood term ``q(z)`` and ``p(z) q(z) = w u(z)`` the site is drawn
    from ``u`` and carries the weight ``p(z) / u(z) = w / q(z)``.

    If ``q(z)`` is proportional to the exact likelihood ``p(x | z)``, ``u`` is the posterior, and the weight times
    the likelihood is the evidence, the same for all ``z``: nothing is left for a guide to do.

    The draw is hidden from traces; an observed site stays as it is.

    Args:
        guide: the likelihood as a distribution over ``z`` of the prior's family, or a function that makes it from
            the program's arguments (then ``reparam`` is used as a decorator or function, not in a ``with``).

    Raises:
        ModelError: when the program runs, if the guide is none, there is no conjugate update for the pair of
            families, or the update cannot be drawn with a gradient (only priors whose draws have one are treated).

    >>> import torch, sumout, sumout.distributions as dist
    >>> total, count = torch.tensor(10.0), torch.tensor(2.0)
    >>> def model():
    ...     prob = sumout.sample("prob", dist.Beta(0.5, 1.5))
    ...     sumout.sample("count", dist.Binomial(total, prob), obs=count)
    >>> likelihood = dist.Beta(1 + count, 1 + total - count)  # as a density of prob
    >>> exact = sumout.poutine.reparam(model, config={"prob": ConjugateReparam(likelihood)})
    >>> evidence = dist.BetaBinomial(0.5, 1.5, total).log_prob(count)
    >>> [bool(sumout.poutine.trace(exact).get_trace().log_prob_sum().isclose(evidence)) for _ in range(3)]
    [True, True, True]
    """

    def __init__(self, guide: Any | Callable[..., Any]) -> None:
        self.guide = guide

    def apply(self, msg: ReparamMessage) -> ReparamResult:
        name, value = msg["name"], msg["value"]
        if msg["is_observed"]:
            return {"fn": msg["fn"], "value": value, "is_observed": True}
        guide = self._guide(name)
        try:
            updated, log_normalizer = msg["fn"].conjugate_update(guide)
        except (NotImplementedError, AttributeError, AssertionError) as error:
            raise self._misfit(
                msg,
                f"there is no conjugate update of it by {type(guide).__name__}",
                "Give a guide of the prior's own family.",
            ) from error
        if not updated.has_rsample:
            raise self._misfit(
                msg,
                f"its update {type(updated).__name__} cannot be drawn with a gradient, which the hidden draw needs",
                "Leave the site out of reparam's config; a discrete one can be enumerated.",
            )
        infer = {"is_observed": False, "is_auxiliary": True, "_do_not_trace": True}
        value = sample(f"{name}_updated", updated, obs=value, infer=infer)
        log_density = None if get_mask() is False else log_normalizer - guide.log_prob(value)
        return determined(value, updated.event_dim, log_density)

    def _guide(self, name: str) -> Any:
        guide = self.guide
        if is_distribution(guide):
            return guide
        inputs = self.args_kwargs
        if inputs is None:
            raise ModelError(
                f"ConjugateReparam at site {name!r} computes its guide from the program's arguments, which are known "
                "only where reparam wraps a function. Write reparam(model, config=...) or use it as a decorator."
            )
        args, kwargs = inputs
        made = guide(*args, **kwargs)
        if not is_distribution(made):
            raise ModelError(
                f"The guide of ConjugateReparam at site {name!r} gave {made!r}; it gives a distribution over the site."
            )
        return made
