"""The relaxed categorical as the softmax of Gumbel noise."""

from __future__ import annotations

import torch

import sumout.distributions as dist
from sumout.effects.primitives.sample import sample
from sumout.infer.reparam.reparam import Reparam, ReparamMessage, ReparamResult, determined


class GumbelSoftmaxReparam(Reparam):
    """Writes ``x ~ RelaxedOneHotCategorical(temperature, logits)`` by uniform noise without parameters::

        x_uniform ~ Uniform(0, 1),    x = softmax((logits - log(-log(x_uniform))) / temperature)

    Maddison, Mnih, Teh (2017), "The Concrete Distribution"; Jang, Gu, Poole (2017), "Categorical Reparameterization
    with Gumbel-Softmax". There is one more latent dimension an event than the simplex has; posteriors with several
    modes in corners can have one mode in the noise. For latent sites only.

    Raises:
        ModelError: when the program runs, if the site is not ``RelaxedOneHotCategorical``, or observed.

    >>> import torch, sumout
    >>> @sumout.poutine.reparam(config={"x": GumbelSoftmaxReparam()})
    ... def model():
    ...     return sumout.sample("x", dist.RelaxedOneHotCategorical(torch.tensor(0.5), logits=torch.zeros(4)))
    >>> trace = sumout.poutine.trace(model).get_trace()
    >>> trace.nodes["x_uniform"]["value"].shape, bool(trace.nodes["x"]["value"].sum().isclose(torch.tensor(1.0)))
    (torch.Size([4]), True)
    """

    def apply(self, msg: ReparamMessage) -> ReparamResult:
        name, value = msg["name"], msg["value"]
        fn, event_dim = self._unwrap(msg["fn"])
        straight_through = isinstance(fn, dist.RelaxedOneHotCategoricalStraightThrough)
        if not isinstance(fn, dist.RelaxedOneHotCategorical) or straight_through:
            raise self._misfit(
                msg, "it is not RelaxedOneHotCategorical", "Leave the site out of reparam's config."
            )
        self._must_be_latent(msg)
        logits = fn.logits
        limits = torch.finfo(logits.dtype)
        noise = None
        if value is not None:
            # Scores up to a common constant, which the softmax drops: zero is as good as another.
            scores = fn.temperature * value.clamp(min=limits.tiny).log()
            noise = (logits - scores).exp().neg().exp().clamp(min=limits.tiny, max=1 - limits.eps)
        uniform = dist.Uniform(torch.zeros_like(logits), torch.ones_like(logits))
        noise = sample(
            f"{name}_uniform", self._wrap(uniform, event_dim), obs=noise, infer={"is_observed": False}
        )
        if value is None:
            gumbel = -(-noise.clamp(min=limits.tiny, max=1 - limits.eps).log()).log()
            value = ((logits + gumbel) / fn.temperature).softmax(dim=-1)
        return determined(value, event_dim)
