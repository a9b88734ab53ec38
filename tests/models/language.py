"""What named programs are written in: a language, a registry, and parameters to begin with.

A *language* is a namespace of the statements ``sample, param, plate, markov, factor, deterministic``, the
handlers ``mask, scale`` and the module ``dist``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

Program = Callable[[], Any]
Build = Callable[[Any], Program]
STATEMENTS = ("sample", "param", "plate", "markov", "factor", "deterministic")


def sumout_language() -> Any:
    """The statements of sumout."""
    import sumout.distributions as dist
    from sumout.effects import handlers, primitives

    statements = {name: getattr(primitives, name) for name in STATEMENTS}
    return SimpleNamespace(**statements, mask=handlers.mask, scale=handlers.scale, dist=dist)


def pyro_language() -> Any:
    """The same statements of Pyro."""
    import pyro
    import pyro.distributions as dist
    from pyro import poutine

    statements = {name: getattr(pyro, name) for name in STATEMENTS}
    return SimpleNamespace(**statements, mask=poutine.mask, scale=poutine.scale, dist=dist)


@dataclass(frozen=True)
class Model:
    """A program and what is known of it.

    ``latent`` and ``observed`` list its sample sites but for those that choose a subsample, ``discrete`` the
    latent ones that can be enumerated in parallel, ``sequential`` those whose values steer Python, ``factors``
    the sites of ``factor``. Params are named after the model: ``"model.param"``. Enumeration may begin at dim
    ``-1 - max_plate_nesting``. A program that is not ``elementwise`` looks at the copies of a site together. The
    ``guide``, if any, covers the sites in ``guided``.

    ``pyro`` says what Pyro 1.9 does with it: ``"agrees"``, ``"refuses"``, or ``"differs"``, a wrong number without a
    word. ``ours`` says whether sumout ``"answers"`` or ``"refuses"`` with an error of its own. Scales belong to no
    assignment, so that models with scales have their log-evidence as a formula, ``evidence``, of the values of the
    params (without the model's name); so do those with too many assignments.
    """

    name: str
    build: Build
    latent: tuple[str, ...]
    observed: tuple[str, ...]
    discrete: tuple[str, ...] = ()
    sequential: tuple[str, ...] = ()
    factors: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    max_plate_nesting: int = 0
    subsampled: bool = False
    pyro: str = "agrees"
    guide: Build | None = None
    guided: tuple[str, ...] = ()
    evidence: Callable[[dict[str, Tensor]], Tensor] | None = None
    ours: str = "answers"
    elementwise: bool = True

    def program(self, language: Any = None) -> Program:
        """The program in a language, ours unless another is given."""
        return self.build(sumout_language() if language is None else language)

    @property
    def continuous(self) -> tuple[str, ...]:
        """The latent sites that are not enumerated."""
        return tuple(name for name in self.latent if name not in {*self.discrete, *self.sequential})


MODELS: dict[str, Model] = {}
APART: dict[str, Model] = {}
"""Programs that laws of handlers are not for: their sites, or the kind of whose values, differ from run to run, or they
have more sites than a tensor has dimensions."""


def model(apart: bool = False, **facts: Any) -> Callable[[Build], Build]:
    """Registers a program under its function's name; the facts are those of ``Model``."""

    def register(build: Build) -> Build:
        name = build.__name__
        facts["params"] = tuple(f"{name}.{param}" for param in facts.get("params", ()))
        if facts.get("guide") is not None:
            facts["guide"] = _named_after(name, facts["guide"])
        registry = APART if apart else MODELS
        registry[name] = Model(name=name, build=_named_after(name, build), **facts)
        return build

    return register


def _named_after(model_name: str, build: Build) -> Build:
    """The same with the model's name before the names of params, so that no two models share one."""

    def build_with_names(ppl: Any) -> Program:
        def param(name: str, *args: Any, **kwargs: Any) -> Any:
            return ppl.param(f"{model_name}.{name}", *args, **kwargs)

        return build(SimpleNamespace(**{**vars(ppl), "param": param}))

    return build_with_names


# --------------------------------------------------------------------------------------------------- numbers


def vector(*numbers: float) -> Tensor:
    """A float64 tensor."""
    return torch.tensor(numbers, dtype=torch.float64)


def numbers(*shape: int, turn: float = 1.0) -> Tensor:
    """Different numbers between 0.1 and 0.9, always the same: with another ``turn``, others."""
    count = torch.arange(1.0, 1.0 + torch.Size(shape).numel(), dtype=torch.float64)
    return (0.5 + 0.4 * torch.sin(turn * 2.4 * count + turn)).reshape(shape)


def chain_tables(states: int) -> tuple[Tensor, Tensor, Tensor]:
    """Initial distribution, transition table of order 1 and of order 2 over ``states`` states, all different."""
    seen = torch.arange(1.0, 1.0 + states, dtype=torch.float64)
    initial = seen / seen.sum()
    first = 1.0 + torch.cos(seen[:, None] * (1.0 + seen)) ** 2
    second = 1.0 + torch.sin(seen[:, None, None] + seen[:, None] * (2.0 + seen)) ** 2
    return initial, first / first.sum(-1, keepdim=True), second / second.sum(-1, keepdim=True)


def at(table: Tensor, *indices: Any) -> Tensor:
    """``table[indices]``; the indices broadcast, further dims of the table are kept."""
    return table[tuple(index.long() if isinstance(index, Tensor) else index for index in indices)]


# ---------------------------------------------------------------------------------------------------- params


def simplex(ppl: Any, name: str, *shape: int) -> Tensor:
    """A param: probabilities along the last dim."""
    weights = numbers(*shape, turn=0.7)
    return ppl.param(name, weights / weights.sum(-1, keepdim=True), constraint=constraints.simplex)


def positive(ppl: Any, name: str, *shape: int) -> Tensor:
    """A param: positive numbers about 1."""
    return ppl.param(name, 0.5 + numbers(*shape, turn=1.3), constraint=constraints.positive)


def unit(ppl: Any, name: str, *shape: int) -> Tensor:
    """A param: numbers between 0 and 1."""
    return ppl.param(name, numbers(*shape, turn=0.9), constraint=constraints.unit_interval)


def real(ppl: Any, name: str, *shape: int) -> Tensor:
    """A param: numbers about 0."""
    return ppl.param(name, 4.0 * numbers(*shape, turn=1.9) - 2.0)
