"""Linear dynamics with any noise, as conditionally Gaussian dynamics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import sumout.distributions as dist
from sumout.errors import ModelError
from sumout.infer.reparam.reparam import Reparam, ReparamMessage, ReparamResult


class LinearHMMReparam(Reparam):
    """Turns a site of ``LinearHMM``, which has no density, into one of ``GaussianHMM`` given auxiliary sites.

    The distributions of the initial state, of the transitions' noise and of the observations' noise are
    reparameterized as if they were sites ``x_init``, ``x_trans`` and ``x_obs``, each into a normal given
    auxiliary sites (``x_trans_gamma``, ...). Transformations of the observations stay. Latent and observed sites are
    treated, ``IndependentHMM`` of ``LinearHMM`` too. Elimination of the states: Rauch, Tung, Striebel (1965).

    Args:
        init: a reparameterizer for the initial state, e.g. ``SymmetricStableReparam()``; without one it is
            normal already.
        trans: for the noise of the transitions.
        obs: for the noise of the observations.

    Raises:
        ModelError: if an argument is none; when the program runs, if the site is not ``LinearHMM``, has no duration,
            or a part is not normal given its auxiliary sites.

    >>> import sumout
    >>> from sumout.infer.reparam.studentt import StudentTReparam
    >>> one = torch.ones(1, 1)
    >>> normal, student = dist.Normal(torch.zeros(1), 1.0).to_event(1), dist.StudentT(4 * torch.ones(1)).to_event(1)
    >>> @sumout.poutine.reparam(config={"x": LinearHMMReparam(obs=StudentTReparam())})
    ... def model(data):
    ...     hmm = dist.LinearHMM(normal, one, normal, one, student, duration=len(data))
    ...     sumout.sample("x", hmm, obs=data)
    >>> trace = sumout.poutine.trace(model).get_trace(torch.zeros(5, 1))
    >>> trace.nodes["x_obs_gamma"]["value"].shape, type(trace.nodes["x"]["fn"]).__name__
    (torch.Size([5, 1]), 'GaussianHMM')
    """

    def __init__(
        self, init: Reparam | None = None, trans: Reparam | None = None, obs: Reparam | None = None
    ) -> None:
        for part, each in (("init", init), ("trans", trans), ("obs", obs)):
            if each is not None and (isinstance(each, type) or not hasattr(each, "apply")):
                raise ModelError(f"LinearHMMReparam has {part}={each!r}; it is a reparameterizer or None.")
        self.init = init
        self.trans = trans
        self.obs = obs

    def apply(self, msg: ReparamMessage) -> ReparamResult:
        fn, event_dim = self._unwrap(msg["fn"])
        if isinstance(fn, dist.IndependentHMM) and isinstance(fn.base_dist, dist.LinearHMM):
            # The series are independent: to the auxiliary sites they are one more dimension of events.
            hmm = dist.IndependentHMM(self._gaussian(msg, fn.base_dist, event_dim + 1))
        elif isinstance(fn, dist.LinearHMM):
            hmm = self._gaussian(msg, fn, event_dim)
        else:
            raise self._misfit(msg, "it is not LinearHMM", "Leave the site out of reparam's config.")
        return {"fn": self._wrap(hmm, event_dim), "value": msg["value"], "is_observed": msg["is_observed"]}

    def _gaussian(self, msg: ReparamMessage, fn: Any, event_dim: int) -> Any:
        """The process given the auxiliary sites, which have all of its dimensions but the last in their batch."""
        if fn.duration is None:
            raise self._misfit(msg, "it has no duration", "Give LinearHMM(..., duration=number_of_steps).")
        init = self._part(msg, "init", self.init, fn.initial_dist, fn.batch_shape, event_dim - 1)
        # Each step has noise of its own, also where all have the same distribution.
        steps = (*fn.batch_shape, fn.duration)
        trans = self._part(msg, "trans", self.trans, fn.transition_dist, steps, event_dim)
        obs = self._part(msg, "obs", self.obs, fn.observation_dist, steps, event_dim)
        hmm = dist.GaussianHMM(
            init, fn.transition_matrix, trans, fn.observation_matrix, obs, duration=fn.duration
        )
        return dist.TransformedDistribution(hmm, list(fn.transforms)) if fn.transforms else hmm

    def _part(
        self,
        msg: ReparamMessage,
        part: str,
        reparam: Reparam | None,
        fn: Any,
        batch_shape: Sequence[int],
        event_dim: int,
    ) -> Any:
        """The distribution of a part, with one event dimension, given its auxiliary sites.

        These are of the batch shape, of which so much is their event that ``event_dim`` comes out.
        """
        if reparam is None:
            self._check_normal(msg, part, fn)
            return fn
        reparam.args_kwargs = self.args_kwargs
        whole = self._wrap(fn.expand(batch_shape), event_dim)
        name = f"{msg['name']}_{part}"
        result = reparam.apply({"name": name, "fn": whole, "value": None, "is_observed": False})["fn"]
        self._check_normal(msg, part, result)
        return result.to_event(1 - result.event_dim)

    def _check_normal(self, msg: ReparamMessage, part: str, fn: Any) -> None:
        plain, _ = self._unwrap(fn)
        if not isinstance(plain, (torch.distributions.Normal, torch.distributions.MultivariateNormal)):
            raise ModelError(
                f"LinearHMMReparam at site {msg['name']!r} needs a normal distribution for {part}, given auxiliary "
                f"sites, and has {type(plain).__name__}. Give {part}= a reparameterizer that makes it normal, e.g. "
                "StudentTReparam() or StableReparam()."
            )
