"""Sites marked ``infer={"collapse": True}``, integrated out wherever a program is run for inference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sumout.effects import Message
from sumout.effects.handled import Handled
from sumout.infer.collapsing.handler import CollapseMessenger


class MarkedMessenger(CollapseMessenger):
    """``collapse(marked=True)`` without a record of other sites: where no site is marked, it does next to nothing."""

    def __init__(self) -> None:
        super().__init__(marked=True)

    def __call__(self, fn: Callable[..., Any]) -> Any:
        return Handled(self, fn)

    def _pyro_sample(self, msg: Message) -> None:
        if self._run.collapsed or "collapse" in msg.infer:
            super()._pyro_sample(msg)

    def _pyro_post_sample(self, msg: Message) -> None:
        if "_collapse" in msg.infer:
            super()._pyro_post_sample(msg)

    def _pyro_post_param(self, msg: Message) -> None:
        return


def with_marked_sites_collapsed(program: Callable[..., Any]) -> Callable[..., Any]:
    """A program in which the sites that are marked for it are integrated out.

    >>> import torch
    >>> import sumout.distributions as dist
    >>> from sumout import poutine, sample
    >>> def model():
    ...     x = sample("x", dist.Normal(0.0, 1.0), infer={"collapse": True})
    ...     sample("y", dist.Normal(x, 1.0), obs=torch.tensor(0.0))
    >>> list(poutine.trace(with_marked_sites_collapsed(model)).get_trace().nodes)
    ['_INPUT', '_collapsed_x', '_RETURN']
    """
    collapsed: Callable[..., Any] = MarkedMessenger()(program)
    return collapsed
