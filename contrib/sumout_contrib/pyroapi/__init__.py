"""sumout as a backend of the pyro-api package.

Importing this package registers the backend ``"sumout"``; after that any program written against ``pyroapi``
runs inside ``pyro_backend("sumout")``. Each module here stands for the module of the same name in ``pyroapi``:
it holds what differs from sumout's own names, and hands everything else on.

>>> import pyroapi
>>> import sumout_contrib.pyroapi
>>> from pyroapi import distributions as dist, infer, ops, pyro
>>> def coin(flips):
...     fair = pyro.sample("fair", dist.Bernoulli(ops.tensor(0.9)), infer={"enumerate": "parallel"})
...     with pyro.plate("flips", len(flips)):
...         pyro.sample("flip", dist.Bernoulli(0.8 - 0.3 * fair), obs=flips)
>>> with pyroapi.pyro_backend("sumout"):
...     loss = infer.TraceEnum_ELBO().loss(coin, lambda flips: None, ops.tensor([1.0, 1.0, 0.0]))
>>> round(loss, 4)  # -log(0.9 * 0.5 * 0.5 * 0.5 + 0.1 * 0.8 * 0.8 * 0.2)
2.077

Raises:
    MissingExtraError: at import, where pyro-api is not installed.
"""

from __future__ import annotations

from sumout.errors import MissingExtraError

try:
    from pyroapi import register_backend
except ImportError as error:
    raise MissingExtraError("pyro-api", "pyroapi", "sumout_contrib.pyroapi") from error

BACKEND = {
    "pyro": "sumout_contrib.pyroapi.pyro",
    "distributions": "sumout_contrib.pyroapi.distributions",
    "handlers": "sumout_contrib.pyroapi.handlers",
    "infer": "sumout_contrib.pyroapi.infer",
    "optim": "sumout_contrib.pyroapi.optim",
    "ops": "torch",
}
"""The module that stands for each module of pyro-api; programs compute with torch's functions, as Pyro's do."""

register_backend("sumout", BACKEND)

__all__ = ["BACKEND"]
