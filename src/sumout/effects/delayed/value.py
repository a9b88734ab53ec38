"""The value of a delayed site, and what tensor code makes of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from sumout.effects.delayed.links import Link, whole
from sumout.errors import ModelError

_CHECKERS = ("torch.distributions", "pyro.distributions", "sumout.distributions")
"""Packages that may ask a delayed value whether it is in a support: their question is about the probe."""


class Delayed(Tensor):
    """A tensor that stands for a value that is not known yet.

    Its entries are those of a probe, one draw that lies in the site's support, so that shapes and checks are those of
    an ordinary run. Every function of torch that takes it gives another one, which knows how it depends on delayed
    sites: affinely (``power`` 1), as a multiple of a power of one entry each, or not in a form that can be integrated
    (``unknown``, which says by which function). Nobody can ask for its entries: ``if``, ``float``, ``int``,
    ``.item()``, NumPy, and code below torch's Python functions raise, for the tensor has no storage.

    Attributes:
        probe: its entries in the run at hand.
        links: what it is made of, without repetition of a site.
        shift: what is added to that; ``None`` for nothing.
        power: the power of the site's entries; other than 1 only for one link of one term, with ``const`` zero.
        unknown: why it is none of these forms; then ``links`` only tell the sites.

    >>> x = Delayed.of_site("x", torch.zeros(3))
    >>> y = torch.tensor([[1.0, 2.0, 0.0]]) @ x + 5.0
    >>> y.shape, y.const, [(link.site, link.where.tolist(), link.coef.tolist()) for link in y.links]
    (torch.Size([1]), tensor([5.]), [('x', [[0], [1], [2]], [[1.0], [2.0], [0.0]])])
    >>> y.exp()
    Delayed(exp of site 'x', shape (1,))
    >>> float(y)
    Traceback (most recent call last):
        ...
    sumout.errors.ModelError: The value of site 'x' is delayed: it is integrated out, and the program asks for a ...
    """

    probe: Tensor
    links: tuple[Link, ...]
    shift: Tensor | None
    power: float
    unknown: str | None
    apply: ClassVar[Callable[..., Any]]
    """What a function of torch makes of delayed arguments; see ``rules``, which has it."""

    @staticmethod
    def of_site(name: str, probe: Tensor, simplex: bool = False, positive: bool = False) -> Delayed:
        """A site's own value.

        Args:
            name: the site.
            probe: a draw.
            simplex: whether entries along the last dimension sum to one.
            positive: whether all entries are positive, so that a root of a power is a power.
        """
        probe = probe.detach()
        return Delayed.made(probe, (whole(name, probe, probe.shape[-1] if simplex else 0, positive),))

    @staticmethod
    def made(
        probe: Tensor,
        links: tuple[Link, ...],
        shift: Tensor | None = None,
        power: float = 1.0,
        unknown: str | None = None,
    ) -> Delayed:
        """A value from its parts."""
        probe = probe.detach()
        # Without storage: nothing can take the probe's entries for the value's.
        value: Delayed = torch.Tensor._make_wrapper_subclass(
            Delayed, probe.shape, dtype=probe.dtype, device=probe.device
        )
        value.probe, value.links, value.shift = probe, links, shift
        value.power, value.unknown = power, unknown
        return value

    # Asked for all the time: not worth the way through torch's dispatch.

    @property
    def shape(self) -> torch.Size:  # type: ignore[override]
        return self.probe.shape

    @property
    def ndim(self) -> int:  # type: ignore[override]
        return self.probe.ndim

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        return self.probe.dtype

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.probe.device

    def dim(self) -> int:
        return self.probe.ndim

    def is_floating_point(self) -> bool:
        return self.probe.is_floating_point()

    @property
    def const(self) -> Tensor:
        """What is added to the sites' part, of the value's shape."""
        if self.shift is not None:
            return self.shift
        return self.probe.new_zeros(()).expand(self.probe.shape)

    @property
    def sites(self) -> tuple[str, ...]:
        """The delayed sites that it depends on."""
        return tuple(dict.fromkeys(link.site for link in self.links))

    @property
    def is_affine(self) -> bool:
        """Whether it is an affine function of the sites."""
        return self.unknown is None and self.power == 1.0

    def at(self, values: Mapping[str, Tensor]) -> Tensor:
        """The value where the delayed sites have the given values.

        Raises:
            ModelError: if it is a function of them that is not kept.
        """
        if self.unknown is not None:
            names = " and ".join(map(repr, self.sites))
            raise ModelError(
                f"A value depends on site {names} through {self.unknown!r}, and is not kept in that form. Call barrier "
                "with the site's own value, and compute from what it returns."
            )
        found = self.const
        for link in self.links:
            entries = values[link.site].reshape(-1)[link.where.clamp(min=0)]
            found = found + (link.coef * (entries if self.power == 1.0 else entries**self.power)).sum(0)
        return found

    @classmethod
    def __torch_function__(
        cls,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return cls.apply(func, args, dict(kwargs or {}))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Called by code below torch's Python functions, which would see entries."""
        delayed = next(each for each in tree_leaves((args, kwargs)) if isinstance(each, Delayed))
        delayed.refuse(f"tensor of numbers ({func})")

    def __bool__(self) -> bool:
        asks: str = sys._getframe(1).f_globals.get("__name__", "")
        if not asks.startswith(_CHECKERS):
            self.refuse("truth value")
        return bool(self.probe)

    def __float__(self) -> float:
        self.refuse("number")

    def __int__(self) -> int:
        self.refuse("number")

    def __index__(self) -> int:
        self.refuse("number")

    def __complex__(self) -> complex:
        self.refuse("number")

    def item(self) -> Any:
        self.refuse("number")

    def tolist(self) -> Any:
        self.refuse("list of numbers")

    def numpy(self, *, force: bool = False) -> Any:
        self.refuse("NumPy array")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        self.refuse("NumPy array")

    def refuse(self, wanted: str) -> NoReturn:
        """Raises ``ModelError``: the program wants to know the value's entries."""
        names = " and ".join(map(repr, self.sites))
        raise ModelError(
            f"The value of site {names} is delayed: it is integrated out, and the program asks for a {wanted}. "
            "Draw it first, with poutine.barrier, or leave the site out of collapse: infer={'collapse': False}."
        )

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        names = " and ".join(map(repr, self.sites))
        what = f"{self.unknown} of site {names}" if self.unknown else f"site {names}"
        return f"Delayed({what}, shape {tuple(self.shape)})"

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __deepcopy__(self, memo: Any) -> Delayed:
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Delayed.made, (self.probe, self.links, self.shift, self.power, self.unknown)
