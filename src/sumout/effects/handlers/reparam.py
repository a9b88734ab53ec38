"""Writing sites in other variables: auxiliary sites, and a function of them that has the site's distribution."""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from sumout.distributions import Delta, MaskedDistribution
from sumout.distributions.families import innermost, is_distribution
from sumout.effects.handled import Handled
from sumout.effects.handlers.mask import MaskMessenger
from sumout.effects.handlers.named import NamedMessenger
from sumout.effects.handlers.reparameterizer import (
    Config,
    Strategy,
    check_reparameterizer,
    choice,
    read_result,
)
from sumout.effects.handlers.wrap import wrap
from sumout.effects.message import Message
from sumout.effects.messenger import level_outside
from sumout.effects.steps import is_named, names_of_steps
from sumout.effects.trace import site_is_subsample
from sumout.errors import ModelError

P = ParamSpec("P")
T = TypeVar("T")

MAX_DEPTH = 25


class _Inputs(threading.local):
    """What the handled function was called with in this thread, and the sites being treated, outermost first."""

    args_kwargs: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    names: tuple[Any, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Inputs, ()  # a copy is not entered


class ReparamHandler(Handled[P, T]):
    """A function whose sites are reparameterized, and whose arguments reparameterizers can look at."""

    msngr: ReparamMessenger

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        inputs = self.msngr._inputs
        before, inputs.args_kwargs = inputs.args_kwargs, (args, kwargs)
        try:
            return super().__call__(*args, **kwargs)
        finally:
            inputs.args_kwargs = before


class ReparamMessenger(NamedMessenger):
    """Replaces sample sites by auxiliary ones and a deterministic transformation of those, with the same joint
    distribution: Gorinova, Moore, Hoffman (2019), "Automatic Reparameterisation of Probabilistic Programs".

    Handlers outside see the auxiliary sites (``x_decentered``, ...), then the site itself, whose value follows
    from them. Auxiliary sites may be reparameterized too; of two nested handlers that name a site the inner one
    holds, unless it leaves the site random. ``condition`` and ``replay`` with values of the original
    program go inside: ``reparam(condition(model, data), config)``. See ``sumout.infer.reparam`` for
    reparameterizers.

    Args:
        config: a reparameterizer by name of site; or a function of the site that gives one, or ``None``; or a
            strategy. A function is not asked about sites that are deterministic already.

    Raises:
        ModelError: if ``config`` is none of the three; when the program runs, if a chosen site has no distribution,
            its reparameterizer breaks the protocol, or a handler outside gives it a value of its own.

    >>> from sumout.distributions import Normal
    >>> from sumout.effects.handlers.trace import trace
    >>> from sumout.effects.primitives import sample
    >>> class Decenter:
    ...     def apply(self, msg):
    ...         fn = msg["fn"]
    ...         noise = sample(msg["name"] + "_noise", Normal(torch.zeros_like(fn.loc), 1.0))
    ...         value = fn.loc + fn.scale * noise
    ...         return {"fn": Delta(value).mask(False), "value": value, "is_observed": True}
    >>> def model():
    ...     return sample("x", Normal(3.0, 2.0))
    >>> recorded = trace(reparam(model, config={"x": Decenter()})).get_trace()
    >>> recorded.stochastic_nodes, recorded.observation_nodes
    (['x_noise'], ['x'])
    >>> bool(recorded.nodes["x"]["value"] == 3.0 + 2.0 * recorded.nodes["x_noise"]["value"])
    True
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self._by_name: Mapping[str, Any] | None = None
        self._choose: Callable[[Message], Any]
        if isinstance(config, Mapping):
            for name, each in config.items():
                check_reparameterizer(name, each)
            self._by_name = config
        elif isinstance(config, Strategy):
            self._choose = functools.partial(choice, config)
        elif callable(config):
            self._choose = config
        else:
            raise ModelError(
                f"reparam has config={config!r}. Give a dictionary from names of sites to reparameterizers, a "
                "function of the site, or a strategy, e.g. reparam(model, config={'x': LocScaleReparam()})."
            )
        self.reports_unused = self._by_name is not None
        self._inputs = _Inputs()

    def __call__(self, fn: Callable[P, T]) -> ReparamHandler[P, T]:
        """``fn`` run inside this handler; reparameterizers can look at its arguments."""
        if not callable(fn):
            raise ValueError(f"{fn!r} is not callable; reparam's own arguments are given by keyword.")
        return ReparamHandler(self, fn)

    def _names(self) -> Iterable[str]:
        return self._by_name or ()

    def _expected(self, name: str) -> bool:
        return self._by_name is not None and self._by_name[name] is not None

    def _chosen(self, msg: Message) -> Any:
        by_name = self._by_name
        if by_name is not None:
            if saw := self._run.saw:
                saw(msg.name)
            return None if msg.name is None else self._named(msg, by_name)
        if msg.infer.get("_deterministic") or site_is_subsample(msg):
            return None
        chosen = self._choose(msg)
        check_reparameterizer(msg.name, chosen)
        return chosen

    def _named(self, msg: Message, by_name: Mapping[str, Any]) -> Any:
        name = msg.name or ""
        if name in by_name or not is_named(msg, by_name.keys()):
            return by_name.get(name)
        steps = names_of_steps(msg)
        if saw := self._run.saw:
            for step in steps:
                saw(step)
        chosen = by_name[steps[0]]
        if any(by_name[step] is not chosen for step in steps):
            raise ModelError(
                f"Site {name!r} stands for several steps of a chain, which have reparameterizers of their own. "
                "Give all steps the same one, or loop step by step: markov without dim."
            )
        return chosen

    def _pyro_sample(self, msg: Message) -> None:
        reparam = self._chosen(msg)
        if reparam is None or site_is_subsample(msg) or self._is_settled(msg):
            return
        fn, name = msg.fn, msg.name
        if not is_distribution(fn):
            raise ModelError(
                f"Site {name!r} draws from {fn!r}, which is no distribution and cannot be reparameterized. Leave the "
                "site out of reparam's config."
            )
        value = msg.value
        if value is not None and not isinstance(value, Tensor):
            value = torch.as_tensor(value)
        given = {"name": name, "fn": fn, "value": value, "is_observed": msg.is_observed}
        new_fn, new_value, is_observed = self._apply(reparam, given)
        if value is not None and new_value is not value:
            _check_value(msg, reparam, value, new_value)
        msg.fn, msg.value, msg.is_observed = new_fn, new_value, is_observed
        msg["_reparam"] = (*msg.get("_reparam", ()), (id(self), name))
        if is_observed and getattr(new_fn, "_mask", None) is False and isinstance(innermost(new_fn), Delta):
            msg.infer["_deterministic"] = True

    def _pyro_post_sample(self, msg: Message) -> None:
        if msg._extra is None or not self._has_treated(msg):
            return
        point = innermost(msg.plain_fn)
        if isinstance(point, Delta) and msg.value is not point.v and not _agree(msg.value, point.v):
            raise ModelError(
                f"Site {msg.name!r} is reparameterized, so its value follows from auxiliary sites; a handler outside "
                "of reparam gave it another one. Apply that handler inside, reparam(condition(model, data), config), "
                "or give values to the auxiliary sites."
            )

    def _is_settled(self, msg: Message) -> bool:
        """Whether the site was reparameterized: here, or to a function of other sites by a handler inside."""
        return "_reparam" in msg and (self._has_treated(msg) or isinstance(innermost(msg.plain_fn), Delta))

    def _has_treated(self, msg: Message) -> bool:
        """Whether the site comes back as this handler left it: some handlers send a site twice."""
        return (id(self), msg.name) in msg.get("_reparam", ())

    def _apply(self, reparam: Any, given: dict[str, Any]) -> tuple[Any, Any, bool]:
        """What the reparameterizer makes of the site: ``fn``, ``value`` and ``is_observed``."""
        fn, name = given["fn"], given["name"]
        if isinstance(fn, MaskedDistribution):  # the same as a mask around the site
            with MaskMessenger(mask=fn._mask):
                new_fn, value, is_observed = self._apply(reparam, {**given, "fn": fn.base_dist})
            return new_fn.mask(fn._mask), value, is_observed
        inputs = self._inputs
        outer, before = inputs.names, getattr(reparam, "args_kwargs", None)
        if len(outer) >= MAX_DEPTH:
            raise ModelError(
                f"reparam goes on reparameterizing auxiliary sites: {', '.join(map(str, outer[:3]))}, ... "
                "Let the config give None for them."
            )
        inputs.names = (*outer, name)
        with suppress(AttributeError):  # who has no room for the arguments does not look at them
            reparam.args_kwargs = inputs.args_kwargs
        try:
            return read_result(name, reparam, reparam.apply(given))
        finally:
            inputs.names = outer
            with suppress(AttributeError):
                reparam.args_kwargs = before


def _check_value(msg: Message, reparam: Any, before: Tensor, after: Any) -> None:
    """What became of the value that a site had: its shape stays, and a handler's choice is not lost unsaid."""
    shape = tuple(getattr(after, "shape", ()))
    if after is not None and shape != tuple(before.shape):
        raise ModelError(
            f"{type(reparam).__name__} changed the value of site {msg.name!r} from shape {tuple(before.shape)} to "
            f"{shape}. A site keeps its shape when it is reparameterized."
        )
    if not msg.is_observed:
        warnings.warn(
            f"A handler inside of reparam set the value of site {msg.name!r}, which {type(reparam).__name__} cannot "
            "keep: the value follows from new draws. Set the values of the auxiliary sites, from outside.",
            RuntimeWarning,
            stacklevel=level_outside(),
        )


def _agree(one: Any, other: Tensor) -> bool:
    """Whether two values are the same up to rounding, and up to repetition along some dimensions."""
    try:
        return torch.allclose(torch.as_tensor(one).to(other), other, rtol=1e-4, atol=1e-6, equal_nan=True)
    except RuntimeError:  # their shapes do not broadcast
        return False


reparam = wrap(ReparamMessenger)
