"""Guides that are handlers of the model."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from sumout.distributions import Delta, Distribution
from sumout.distributions.families import is_distribution
from sumout.effects.handlers.trace import TraceMessenger
from sumout.effects.message import Message
from sumout.effects.trace import Trace, prune_subsample_sites, site_is_subsample
from sumout.errors import ModelError, UnknownSiteError, nearest


class _Call(threading.local):
    """The call of the guide that is going on in this thread."""

    args_kwargs: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    asked: str | None = None
    """The site whose posterior is being made."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _Call, ()


class GuideMessenger(TraceMessenger, ABC):
    """A guide that is written site by site: it runs the model and draws each latent site from a posterior.

    A subclass defines ``get_posterior``. An instance is a program with the arguments of the model, which can be
    given to ``SVI`` as the guide: handlers outside see the latent sites with the distributions that the posterior
    gives them, and traces outside do not record what the model observes.

    Args:
        model: a program.

    Raises:
        ModelError: if the model is not callable; in a call, if a posterior does not fit its site.

    >>> import torch
    >>> from sumout.distributions import Normal
    >>> from sumout.effects.primitives import param, sample
    >>> def model(x):
    ...     z = sample("z", Normal(0.0, 1.0))
    ...     sample("x", Normal(z, 1.0), obs=x)
    >>> class Posterior(GuideMessenger):
    ...     def get_posterior(self, name, prior):
    ...         (x,), _ = self.args_kwargs
    ...         return Normal(x / 2, 0.5**0.5)
    >>> guide = Posterior(model)
    >>> sorted(guide(torch.tensor(1.0)))
    ['x', 'z']
    >>> model_trace, guide_trace = guide.get_traces()
    >>> log_evidence = model_trace.log_prob_sum() - guide_trace.log_prob_sum()
    >>> bool(abs(log_evidence - Normal(0.0, 2**0.5).log_prob(torch.tensor(1.0))) < 1e-5)
    True
    """

    def __init__(self, model: Callable[..., Any]) -> None:
        super().__init__()
        if not callable(model):
            raise ModelError(f"A guide is made of a model, which is a function, not {model!r}.")
        # In a tuple, a module is no submodule of a guide that is a module as well.
        self._model = (model,)
        self._call = _Call()

    @property
    def model(self) -> Callable[..., Any]:
        """The model."""
        return self._model[0]

    @property
    def args_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The positional and the keyword arguments of the call that is going on."""
        if self._call.args_kwargs is None:
            raise ModelError("A guide has args_kwargs while it is called, for use in get_posterior.")
        return self._call.args_kwargs

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """Runs the model with values of the posterior.

        Returns:
            The values of all latent, deterministic and observed sites by name.
        """
        call = self._call
        with self:
            call.args_kwargs = args, kwargs
            try:
                self.model(*args, **kwargs)
            finally:
                call.args_kwargs = None
        return {
            name: site.value
            for name, site in self.trace.nodes.items()
            if site.type == "sample" and not site_is_subsample(site) and not _is_own(site)
        }

    @abstractmethod
    def get_posterior(self, name: str, prior: Any) -> Any:
        """The posterior of a latent site of the model, given the values of the sites before it.

        It may call ``param`` and ``sample``; what it samples belongs to the guide alone and should be marked
        ``infer={"is_auxiliary": True}`` (it is marked if it is not). Plates of the model are in force. See also
        ``upstream_value``, ``args_kwargs``, and ``trace`` for the sites so far.

        Args:
            name: the site.
            prior: its distribution in the model.

        Returns:
            A distribution with the prior's event shape and a batch shape that broadcasts with the prior's; or a value
            of the site, which stands for a point mass.
        """

    def upstream_value(self, name: str) -> Tensor | None:
        """The value of a sample or deterministic site that the model has passed, for use in ``get_posterior``.

        Raises:
            UnknownSiteError: if it has not passed one of this name.
        """
        nodes = self.trace.nodes
        if name not in nodes:
            raise UnknownSiteError(f"There is no site {name!r} upstream of this one.{nearest(name, nodes)}")
        value: Tensor | None = nodes[name].value
        return value

    def get_traces(self) -> tuple[Trace, Trace]:
        """The last call as the trace of a model and the trace of a guide.

        They are those that ``trace(guide)`` and then ``trace(replay(model, ...))`` would have given with these
        values, from one run; so ``model_trace.log_prob_sum() - guide_trace.log_prob_sum()`` is one estimate of the
        evidence lower bound. Sites of subsampled plates are in neither.

        Returns:
            The model's trace, in which sites have their priors, and the guide's, which has the latent and auxiliary
            sites.
        """
        guide_trace = prune_subsample_sites(self.trace)
        model_trace = guide_trace.copy()
        for name, site in list(guide_trace.nodes.items()):
            if _is_own(site):
                model_trace.remove_node(name)
            elif "prior" in site:
                model_trace.nodes[name].fn = site["prior"]
            else:
                guide_trace.remove_node(name)
        return model_trace, guide_trace

    def _pyro_sample(self, msg: Message) -> None:
        call, infer = self._call, msg.infer
        if call.asked is not None:
            infer["is_auxiliary"] = True
            msg["asked"] = call.asked
            return
        if site_is_subsample(msg) or infer.get("_do_not_trace"):
            return
        if msg.is_observed:
            infer["_do_not_trace"] = (
                self  # until it was seen outside: the model observes it, the guide does not
            )
            return
        prior, name = msg.fn, msg.name or ""
        call.asked = name
        try:
            posterior = self.get_posterior(name, prior)
        finally:
            call.asked = None
        msg["prior"] = infer["prior"] = prior
        _draw_from(msg, posterior, prior)

    def _pyro_post_sample(self, msg: Message) -> None:
        if msg.infer.get("_do_not_trace") is self:
            del msg.infer["_do_not_trace"]
        if "prior" in msg and msg["prior"].batch_shape != msg.batch_shape:
            # Plates outside have met the posterior alone.
            msg["prior"] = msg.infer["prior"] = msg["prior"].expand(msg.batch_shape)
        super()._pyro_post_sample(msg)


def _is_own(site: Message) -> bool:
    """Whether the site was made by ``get_posterior``."""
    return "asked" in site


def _draw_from(msg: Message, posterior: Any, prior: Distribution) -> None:
    """Puts the posterior into the site, with at least the batch shape of the prior."""
    if isinstance(posterior, Tensor):
        posterior = Delta(posterior, event_dim=prior.event_dim)
    if not is_distribution(posterior):
        raise ModelError(
            f"get_posterior gave {posterior!r} for site {msg.name!r}; it gives a distribution of "
            "sumout.distributions, or a tensor as the value."
        )
    for which in ("event_shape", "batch_shape"):
        found, wanted = getattr(posterior, which), getattr(prior, which)
        if found == wanted:
            continue
        if which == "event_shape" or any(
            1 not in (one, other) and one != other
            for one, other in zip(reversed(found), reversed(wanted), strict=False)
        ):
            raise ModelError(
                f"Site {msg.name!r} has {which} {tuple(wanted)} in the model and {tuple(found)} in the guide. "
                "Give both the same plates and the same .to_event()."
            )
    msg.fn = posterior
    if posterior.batch_shape != prior.batch_shape:
        shape = np.broadcast_shapes(posterior.batch_shape, prior.batch_shape)
        msg.expand_fn(shape)
