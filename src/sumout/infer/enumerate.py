"""Which sites are summed out: marks for the enum handler."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from sumout.effects import Message
from sumout.effects.handlers import InferConfigMessenger
from sumout.effects.trace import site_is_subsample


def config_enumerate(
    guide: Callable[..., Any] | None = None,
    default: str | None = "parallel",
    expand: bool = False,
    num_samples: int | None = None,
    tmc: str = "diagonal",
) -> Callable[..., Any]:
    """Marks every latent site of a program that has a finite support for enumeration.

    What a site's own ``infer`` says is kept, also ``infer={"enumerate": None}``, which leaves the site out. With
    ``num_samples`` every latent site is marked, to be replaced by that many samples. It works as a function and as a
    decorator, with and without arguments.

    Args:
        guide: a model or guide.
        default: ``"parallel"``, ``"sequential"`` or ``None`` (no marks).
        expand: whether enumerated values are expanded to the full batch shape.
        num_samples: samples per site for local Monte Carlo, or ``None`` to enumerate exhaustively.
        tmc: ``"diagonal"`` or ``"mixture"``, the proposal for local Monte Carlo.

    Raises:
        ValueError: if an argument is not one of the above.

    >>> from sumout import sample, plate
    >>> from sumout.effects.handlers import trace
    >>> import sumout.distributions as dist
    >>> @config_enumerate
    ... def model():
    ...     sample("z", dist.Bernoulli(0.5))
    >>> trace(model).get_trace().nodes["z"]["infer"]
    {'enumerate': 'parallel', 'expand': False}
    """
    if default not in ("parallel", "sequential", None):
        raise ValueError(f"default is {default!r}; it may be 'parallel', 'sequential' or None.")
    if tmc not in ("diagonal", "mixture"):
        raise ValueError(f"tmc is {tmc!r}; it may be 'diagonal' or 'mixture'.")
    if num_samples is not None and (num_samples < 1 or default != "parallel"):
        raise ValueError("num_samples needs to be at least 1, and default='parallel'.")
    if guide is None:
        return functools.partial(
            config_enumerate, default=default, expand=expand, num_samples=num_samples, tmc=tmc
        )

    marks: dict[str, Any] = {"enumerate": default, "expand": expand}
    if num_samples is not None:
        marks |= {"num_samples": num_samples, "tmc": tmc}

    def mark(site: Message) -> dict[str, Any]:
        if site.type != "sample" or site.is_observed or site_is_subsample(site):
            return {}
        if num_samples is None and not getattr(site.plain_fn, "has_enumerate_support", False):
            return {}
        return {key: site.infer.get(key, value) for key, value in marks.items()}

    return InferConfigMessenger(mark)(guide)
