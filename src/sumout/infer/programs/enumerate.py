"""Which sites are summed out: marks for the enum handler."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from sumout.effects import Message
from sumout.effects.handlers import InferConfigMessenger
from sumout.effects.trace import site_is_subsample
from sumout.errors import ModelError


def config_enumerate(
    guide: Callable[..., Any] | None = None,
    default: str | None = "parallel",
    expand: bool = False,
    num_samples: int | None = None,
    tmc: str = "diagonal",
) -> Callable[..., Any]:
    """Marks the latent sites of a program for enumeration: those whose values can be listed.

    With ``num_samples`` every latent site is marked, to be replaced by that many samples, continuous ones too. What
    a site's own ``infer`` says is kept, also ``infer={"enumerate": None}``, which leaves the site out. A count without
    bound, such as a Poisson's, can be cut off by ``infer={"truncate": n}`` at a largest value, or where a probability
    of at most ``infer={"truncate": 1e-9}`` is lost (for each element of its plates); ``lost_mass`` tells how much.
    It works as a function and as a decorator, with and without arguments.

    Args:
        guide: a model or guide.
        default: ``"parallel"``; ``"sequential"``, a run of the program for each value; ``"auto"``, parallel unless
            Python decides on the value (``if z:``), then sequential; or ``None`` (no marks).
        expand: whether the values are expanded to the full batch shape; of samples, whether there are
            ``num_samples`` for each combination of the samples that a site depends on.
        num_samples: samples per site for local Monte Carlo, or ``None`` to enumerate exhaustively.
        tmc: ``"diagonal"`` or ``"mixture"``: which samples of the sites that a site depends on it is drawn from; see
            ``sumout.effects.enumerate_site``.

    Raises:
        ModelError: if an argument is not one of the above, or ``guide`` is no function.

    >>> from sumout import sample, plate
    >>> from sumout.effects.handlers import trace
    >>> import sumout.distributions as dist
    >>> @config_enumerate
    ... def model():
    ...     sample("z", dist.Bernoulli(0.5))
    >>> trace(model).get_trace().nodes["z"]["infer"]
    {'enumerate': 'parallel', 'expand': False}
    """
    if guide is not None and not callable(guide):
        raise ModelError(
            f"config_enumerate takes a program first and was given {guide!r}. Pass other arguments by keyword, "
            "e.g. config_enumerate(default='sequential')."
        )
    if default not in ("parallel", "sequential", "auto", None):
        raise ModelError(f"default is {default!r}; it may be 'parallel', 'sequential', 'auto' or None.")
    if expand not in (True, False):
        raise ModelError(f"expand is {expand!r}; it may be True or False.")
    if tmc not in ("diagonal", "mixture"):
        raise ModelError(f"tmc is {tmc!r}; it may be 'diagonal' or 'mixture'.")
    if num_samples is not None:
        if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples < 1:
            raise ModelError(f"num_samples is {num_samples!r}; it may be None or a positive integer.")
        if default == "sequential":
            raise ModelError("Samples are taken in parallel: leave num_samples out, or default='parallel'.")
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
        listed = getattr(site.plain_fn, "has_enumerate_support", False) or "truncate" in site.infer
        if num_samples is None and not listed:
            return {}
        return {key: site.infer.get(key, value) for key, value in marks.items()}

    return InferConfigMessenger(mark)(guide)
