"""The run that finds a program's continuous latent sites, and gives them their first values."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sumout.distributions import biject_to
from sumout.distributions.families import innermost, is_distribution
from sumout.effects import Message, Messenger, Trace
from sumout.effects.steps import unrolled_step
from sumout.effects.trace import site_is_subsample
from sumout.errors import ModelError
from sumout.infer.potential.initial import Init


class Starting(Messenger):
    """Gives continuous latent sites their first values."""

    def __init__(self, init: Init) -> None:
        self.init = init
        self.unconstrained: dict[str, Tensor] = {}
        self.fixed: dict[str, Any] = {}

    def _pyro_sample(self, msg: Message) -> None:
        if msg.is_observed or msg.done or site_is_subsample(msg) or "_collapse" in msg.infer:
            return  # What is integrated out needs no value.
        _refuse_discrete(msg)
        fn = msg.fn
        if fn.support.is_discrete:
            return
        if unrolled_step(msg) is not None:
            raise ModelError(
                f"Site {msg.name!r} is latent, continuous and stands for many steps of a chain at once. Loop step by "
                "step: markov(range(T)) without dim."
            )
        assert msg.name is not None
        transform = biject_to(fn.support)
        unconstrained = transform.inv(self.init(msg).detach()).detach()
        # What follows from this value tells so, and so do supports that depend on it.
        unconstrained.requires_grad_()
        self.unconstrained[msg.name] = unconstrained
        if not _follows(fn.support):
            self.fixed[msg.name] = transform
        msg.value = transform(unconstrained)
        msg.done = True


def _follows(support: Any) -> bool:
    """Whether a support depends on values that the run was given."""
    for each in vars(support).values() if hasattr(support, "__dict__") else ():
        parts = each if isinstance(each, (list, tuple)) else (each,)
        for part in parts:
            if isinstance(part, Tensor):
                if part.requires_grad:
                    return True
            elif hasattr(part, "is_discrete") and _follows(part):
                return True
    return False


def _refuse_discrete(site: Message) -> None:
    if not is_distribution(site.plain_fn):
        raise ModelError(
            f"Site {site.name!r} is latent and draws from a function, which has no density. Observe it, or use a "
            "distribution."
        )
    fn = site.plain_fn
    if not fn.support.is_discrete:
        return
    left_out = "enumerate" in site.infer and site.infer["enumerate"] is None
    if left_out or not (fn.has_enumerate_support or "truncate" in site.infer):
        why = "is marked infer={'enumerate': None}" if left_out else "has no finite support"
        raise ModelError(
            f"Site {site.name!r} is latent with {type(innermost(fn)).__name__} and {why}: it can be neither summed "
            "out nor moved along by a gradient. Observe it, or write the model without it."
        )


def refuse_subsamples(run: Trace) -> None:
    for name, site in run.nodes.items():
        if site_is_subsample(site) and len(site.value) < site.plain_fn.size:
            raise ModelError(
                f"Plate {name!r} looks at {len(site.value)} of its {site.plain_fn.size} elements, so the density is "
                "not that of the whole data. Use the full plate: no subsample_size."
            )
