"""The evidence lower bound of vectorized chains."""

from __future__ import annotations

from sumout.infer.objectives.traceenum_elbo import TraceEnum_ELBO


class TraceMarkovEnum_ELBO(TraceEnum_ELBO):
    """``TraceEnum_ELBO`` by the name that programs with vectorized chains ask for it: the two are the same.

    Chains may be vectorized (``markov(range(T), dim=..., name=...)``) in the model, in the guide, or in both, with any
    history in each; one may loop where the other takes all steps at once.

    >>> import torch, sumout
    >>> import sumout.distributions as dist
    >>> data = torch.tensor([0.3, 1.4, 0.9, -0.2])
    >>> move = torch.tensor([[0.9, 0.1], [0.3, 0.7]])
    >>> @sumout.infer.config_enumerate
    ... def model():
    ...     x = torch.tensor(0)
    ...     for t in sumout.markov(range(4), dim=-1, name="time"):
    ...         x = sumout.sample(f"x_{t}", dist.Categorical(move[x]))
    ...         sumout.sample(f"y_{t}", dist.Normal(x, 1.0), obs=data[t])
    >>> @sumout.infer.config_enumerate
    ... def guide():
    ...     for t in sumout.markov(range(4), dim=-1, history=0, name="time"):
    ...         sumout.sample(f"x_{t}", dist.Categorical(torch.tensor([0.6, 0.4])))
    >>> bool(TraceMarkovEnum_ELBO().loss(model, guide) > TraceMarkovEnum_ELBO().loss(model, lambda: None))
    True
    """
