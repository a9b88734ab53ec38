"""Student's t as a scale mixture of normals."""

from __future__ import annotations

import sumout.distributions as dist
from sumout.effects.primitives.sample import sample
from sumout.infer.reparam.reparam import Reparam, ReparamMessage, ReparamResult


class StudentTReparam(Reparam):
    """Writes ``x ~ StudentT(df, loc, scale)`` as a normal whose precision is gamma::

        x_gamma ~ Gamma(df / 2, df / 2),    x ~ Normal(loc, scale / sqrt(x_gamma))

    Andrews, Mallows (1974), "Scale Mixtures of Normal Distributions". It treats latent and observed sites; with
    ``LinearHMMReparam`` it makes a process with such noise conditionally Gaussian.

    Raises:
        ModelError: when the program runs, if the site is not ``StudentT``.

    >>> import torch, sumout
    >>> @sumout.poutine.reparam(config={"x": StudentTReparam()})
    ... def model():
    ...     return sumout.sample("x", dist.StudentT(3.0), obs=torch.tensor(1.0))
    >>> trace = sumout.poutine.trace(model).get_trace()
    >>> trace.stochastic_nodes, type(trace.nodes["x"]["fn"]).__name__
    (['x_gamma'], 'Normal')
    """

    def apply(self, msg: ReparamMessage) -> ReparamResult:
        fn, event_dim = self._unwrap(msg["fn"])
        if not isinstance(fn, dist.StudentT):
            raise self._misfit(msg, "it is not StudentT", "Leave the site out of reparam's config.")
        half_df = fn.df / 2
        precision = sample(f"{msg['name']}_gamma", self._wrap(dist.Gamma(half_df, half_df), event_dim))
        normal = self._wrap(dist.Normal(fn.loc, fn.scale * precision.rsqrt()), event_dim)
        return {"fn": normal, "value": msg["value"], "is_observed": msg["is_observed"]}
