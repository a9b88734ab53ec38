"""Integrating out conjugate sites: the place of it, which is still empty."""

from __future__ import annotations

from typing import Any, TypeVar

from sumout.effects.handlers.trace import TraceMessenger
from sumout.effects.handlers.wrap import wrap
from sumout.errors import ModelError

Self = TypeVar("Self", bound="CollapseMessenger")


class CollapseMessenger(TraceMessenger):
    """Is to integrate the sites inside out by conjugacy. It does not yet: entering it raises.

    Its name, place and arguments are settled, its mathematics is not there: sums of natural parameters over plates
    and data, log-normalizers in the place of integrals. Until then sum discrete sites out
    (``config_enumerate`` with ``TraceEnum_ELBO``, or ``sumout.infer.log_evidence``) and give continuous ones a guide.

    Args:
        args, kwargs: as for ``TraceMessenger``: ``graph_type``, ``param_only``.

    Raises:
        ModelError: when it is entered, as a context manager or by calling a decorated program.

    >>> from sumout.distributions import Normal
    >>> from sumout.effects.primitives import sample
    >>> try:
    ...     collapse(lambda: sample("z", Normal(0.0, 1.0)))()
    ... except ModelError as error:
    ...     print(error)
    collapse cannot integrate sites out by conjugacy yet. ...
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    def __enter__(self: Self) -> Self:
        raise ModelError(
            "collapse cannot integrate sites out by conjugacy yet. Leave it out; sum discrete sites out "
            "(infer={'enumerate': 'parallel'} with TraceEnum_ELBO) and give continuous ones a guide."
        )


collapse = wrap(CollapseMessenger)
