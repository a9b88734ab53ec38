"""The run that finds a program's continuous latent sites, and gives them their first values."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sumout.distributions import biject_to
from sumout.distributions.families import innermost, is_distribution
from sumout.effects import Message, Messenger, Trace
from sumout.effects.steps import ChainStep, assembled, family, is_lookback
from sumout.effects.trace import site_is_subsample
from sumout.errors import ModelError
from sumout.infer.potential.initial import Init


class Starting(Messenger):
    """Gives continuous latent sites their first values."""

    def __init__(self, init: Init) -> None:
        self.init = init
        self.unconstrained: dict[str, Tensor] = {}
        self.values: dict[str, Tensor] = {}
        self.fixed: dict[str, Any] = {}
        self.integrated_out: dict[str, None] = {}

    def _pyro_sample(self, msg: Message) -> None:
        if msg.is_observed or msg.done or site_is_subsample(msg):
            return
        if "_collapse" in msg.infer:
            self.integrated_out[msg.name or ""] = None
            return  # What is integrated out needs no value.
        _refuse_discrete(msg)
        if msg.fn.support.is_discrete:
            return
        name = self._scored_name(msg) if is_lookback(msg) else str(msg.name)
        if name not in self.values:
            self._begin_at(name, msg)
        if name != msg.name:
            self._look_back(name, msg)
        else:
            msg.value = self.values[name]
        msg.done = True

    def _begin_at(self, name: str, msg: Message) -> None:
        """Gives a site, or the later steps of the chain of which ``msg`` is what is looked back at, first values."""
        site = msg
        if name != msg.name:
            site = msg.copy()
            site.name = name
        transform = biject_to(msg.fn.support)
        unconstrained = transform.inv(self.init(site).detach()).detach()
        # What follows from this value tells so, and so do supports that depend on it.
        unconstrained.requires_grad_()
        self.unconstrained[name] = unconstrained
        if not _follows(msg.fn.support):
            self.fixed[name] = transform
        self.values[name] = transform(unconstrained)

    def _scored_name(self, msg: Message) -> str:
        """The name that the steps which a vectorized chain takes at once will have, when only the first are known."""
        step: ChainStep = msg.infer["_chain"]
        before, after = family(msg.name or "", step)
        first = step.start
        while f"{before}{first}{after}" in self.values:
            first += 1
        return f"{before}{slice(first, first + step.stop - step.start)}{after}"

    def _look_back(self, name: str, msg: Message) -> None:
        """Gives a site that is looked back at the values of the steps that it stands for."""
        if name not in self.fixed:
            raise ModelError(
                f"Site {name!r} stands for many steps of a chain at once, and its support depends on other sites. Loop "
                "step by step: markov without dim."
            )
        found = assembled(msg, self.values)
        assert found is not None
        msg.value = found[0]


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
