"""Named parameters that live longer than one run of a program.

A parameter is kept as an unconstrained leaf tensor, which optimizers change; programs see its image under the
transform that belongs to its constraint.
"""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Callable, ItemsView, Iterator, KeysView
from contextlib import contextmanager
from typing import IO, Any, TypedDict

import torch
from torch import Tensor

from sumout.distributions import constraints, transform_to
from sumout.errors import ModelError, nearest
from sumout.settings import settings

Init = Tensor | float | Callable[[], Tensor]


class StoreState(TypedDict):
    """All that a store holds: unconstrained tensors and constraints, by name."""

    params: dict[str, Tensor]
    constraints: dict[str, Any]


class _Contents:
    """Three dictionaries with the same keys; ``transforms`` is derived and kept because it is read often."""

    def __init__(self) -> None:
        self.leaves: dict[str, Tensor] = {}
        self.constraints: dict[str, Any] = {}
        self.transforms: dict[str, Any] = {}

    def state(self) -> StoreState:
        """The leaves themselves."""
        return {"params": self.leaves.copy(), "constraints": self.constraints.copy()}

    def update(self, state: StoreState) -> None:
        """Takes over the leaves of a state."""
        _check_state(state)
        for name, leaf in state["params"].items():
            self.leaves[name] = leaf
            self.constraints[name] = constraint = state["constraints"].get(name, constraints.real)
            self.transforms[name] = transform_to(constraint)


def _check_state(state: StoreState) -> None:
    if not isinstance(state, dict) or set(state) != {"params", "constraints"}:
        raise ModelError("The state of a parameter store is a dict with the keys 'params' and 'constraints'.")


MODULE_DIVIDER = "$$$"
"""Stands in the name of a module's param between the module's and its own name."""


class _Leaf(weakref.ref[Tensor]):
    """What ``unconstrained()`` of a value gives; it does not keep the leaf alive, which may be replaced.

    A pickled value has a leaf of its own.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Unpickled, (self(),)


class _Unpickled:
    """The leaf of a value that was pickled: nobody else keeps it."""

    def __init__(self, leaf: Tensor) -> None:
        self.leaf = leaf

    def __call__(self) -> Tensor:
        return self.leaf


class ParamStore:
    """A mapping from names to constrained, differentiable values.

    Every value has a method ``unconstrained()``, which gives the leaf tensor behind it. A store may be shared
    by threads; ``scope`` exchanges its contents for the calling thread alone.

    >>> store = ParamStore()
    >>> rate = store.setdefault("rate", torch.tensor(2.0), constraints.positive)
    >>> rate.item(), round(rate.unconstrained().item(), 4)
    (2.0, 0.6931)
    >>> list(store), "rate" in store
    (['rate'], True)
    """

    def __init__(self) -> None:
        self._shared = _Contents()
        self._scoped = threading.local()
        self._lock = threading.RLock()

    @property
    def _contents(self) -> _Contents:
        contents: _Contents = getattr(self._scoped, "contents", self._shared)
        return contents

    def setdefault(self, name: str, init: Init, constraint: Any = constraints.real) -> Tensor:
        """The value of ``name``, which is made from ``init`` where there is none yet.

        Args:
            name: the parameter.
            init: its first constrained value, or a function that makes one; not looked at when the parameter
                exists.
            constraint: the set its values lie in.

        Raises:
            ModelError: if ``init`` is no floating-point value of that set.
        """
        contents = self._contents
        if name not in contents.leaves:
            with self._lock:
                if name not in contents.leaves:
                    self._set(name, init() if callable(init) else init, constraint)
        return self[name]

    def _set(self, name: str, value: Tensor | float, constraint: Any) -> None:
        contents = self._contents
        transform = transform_to(constraint)
        contents.leaves[name] = _leaf(name, torch.as_tensor(value), constraint, transform)
        contents.constraints[name] = constraint
        contents.transforms[name] = transform

    def __getitem__(self, name: str) -> Tensor:
        contents = self._contents
        try:
            leaf = contents.leaves[name]
        except KeyError:
            raise KeyError(f"There is no parameter {name!r}.{nearest(name, contents.leaves)}") from None
        value: Tensor = contents.transforms[name](leaf)
        value.unconstrained = _Leaf(leaf)  # type: ignore[attr-defined]
        return value

    def __setitem__(self, name: str, value: Tensor) -> None:
        """Sets the constrained value; a name not known yet becomes an unconstrained parameter."""
        with self._lock:
            self._set(name, value, self._contents.constraints.get(name, constraints.real))

    def parameter(self, name: str) -> torch.nn.Parameter | None:
        """The leaf tensor of a name as a parameter that a torch module can have; ``None`` if there is none.

        >>> store = ParamStore()
        >>> store["w"] = torch.ones(2)
        >>> weight = store.parameter("w")
        >>> store["w"] is weight, store.parameter("w") is weight
        (True, True)
        """
        leaf = self._contents.leaves.get(name)
        if leaf is None or isinstance(leaf, torch.nn.Parameter):
            return leaf
        with self._lock:
            found = self._contents.leaves[name] = torch.nn.Parameter(leaf.detach())
        return found

    def constraint_of(self, name: str) -> Any:
        """The set that the values of a parameter lie in; ``KeyError`` if there is none of the name."""
        return self._contents.constraints[name]

    def __delitem__(self, name: str) -> None:
        contents = self._contents
        del contents.leaves[name], contents.constraints[name], contents.transforms[name]

    def __contains__(self, name: object) -> bool:
        return name in self._contents.leaves

    def __len__(self) -> int:
        return len(self._contents.leaves)

    def __iter__(self) -> Iterator[str]:
        return iter(self._contents.leaves)

    def __repr__(self) -> str:
        shapes = {name: tuple(leaf.shape) for name, leaf in self.named_parameters()}
        return f"ParamStore({shapes})"

    def keys(self) -> KeysView[str]:
        """The names, in the order in which the parameters were made."""
        return self._contents.leaves.keys()

    def values(self) -> Iterator[Tensor]:
        """The constrained values."""
        return (self[name] for name in self)

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Pairs of name and constrained value."""
        return ((name, self[name]) for name in self)

    def named_parameters(self) -> ItemsView[str, Tensor]:
        """Pairs of name and unconstrained leaf tensor: what an optimizer changes."""
        return self._contents.leaves.items()

    def get_param(
        self,
        name: str,
        init_tensor: Init | None = None,
        constraint: Any = constraints.real,
        event_dim: int | None = None,
    ) -> Tensor:
        """What the primitive ``param`` does outside all handlers; ``event_dim`` is for handlers."""
        return self[name] if init_tensor is None else self.setdefault(name, init_tensor, constraint)

    def param_name(self, param: Tensor) -> str | None:
        """The name under which an unconstrained leaf tensor is kept, ``None`` if it is not in the store."""
        return next((name for name, leaf in self.named_parameters() if leaf is param), None)

    def match(self, pattern: str) -> dict[str, Tensor]:
        """The values whose names begin with a match of the regular expression."""
        return {name: self[name] for name in self if re.match(pattern, name)}

    def clear(self) -> None:
        """Forgets all parameters."""
        contents = self._contents
        with self._lock:
            for names in (contents.leaves, contents.constraints, contents.transforms):
                names.clear()

    def get_state(self) -> StoreState:
        """A copy of all parameters, unconstrained and detached, and of their constraints: later steps do not change it.

        >>> store = ParamStore()
        >>> leaf = store.setdefault("w", torch.tensor(1.0)).unconstrained()
        >>> before = store.get_state()
        >>> _ = leaf.data.add_(2.0)
        >>> store.set_state(before)
        >>> store["w"].item()
        1.0
        """
        state = self._contents.state()
        return {"params": _copies(state["params"]), "constraints": state["constraints"]}

    def set_state(self, state: StoreState) -> None:
        """Adds what ``get_state`` gave, in the place of parameters of the same names; it may be used again.

        The parameters are new tensors, for which optimizers begin anew. Those of a torch module stay the module's
        and take the values.

        Raises:
            ModelError: if it is no such state, or the shape of a module's parameter differs.
        """
        _check_state(state)
        with self._lock:
            leaves = self._contents.leaves
            copies = _copies(state["params"])
            for name, value in copies.items():
                own = leaves.get(name)
                if isinstance(own, torch.nn.Parameter):
                    _copy_into(name, own, value)
                    copies[name] = own
                else:
                    value.requires_grad_()
            self._contents.update({"params": copies, "constraints": state["constraints"]})

    def save(self, file: str | IO[bytes]) -> None:
        """Writes all parameters and constraints to a file, given by path or open for writing."""
        torch.save(self.get_state(), file)

    def load(self, file: str | IO[bytes], map_location: Any = None) -> None:
        """Reads what ``save`` wrote.

        Constraints are arbitrary objects, so the file is unpickled: load only files that you trust.
        """
        self.set_state(torch.load(file, map_location, weights_only=False))

    @contextmanager
    def scope(self, state: StoreState | None = None) -> Iterator[StoreState]:
        """Lets this thread work on other contents for a while; the old ones come back after it.

        Args:
            state: what the store holds at the beginning: nothing, or what an earlier scope or ``get_state`` gave. Its
                tensors are the parameters, and no copies.

        Yields:
            The state, brought up to date at the end.

        >>> store = ParamStore()
        >>> with store.scope() as first:
        ...     _ = store.setdefault("w", torch.zeros(2))
        >>> list(store), list(first["params"])
        ([], ['w'])
        """
        if state is None:
            state = {"params": {}, "constraints": {}}
        before = getattr(self._scoped, "contents", None)
        contents = _Contents()
        contents.update(state)
        for leaf in contents.leaves.values():
            leaf.requires_grad_()
        self._scoped.contents = contents
        try:
            yield state
            current = contents.state()
            state["params"], state["constraints"] = current["params"], current["constraints"]
        finally:
            if before is None:
                del self._scoped.contents
            else:
                self._scoped.contents = before


def _copies(leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """Detached copies; what is one tensor under two names stays one."""
    copies = {leaf: leaf.detach().clone() for leaf in leaves.values()}
    return {name: copies[leaf] for name, leaf in leaves.items()}


def _copy_into(name: str, own: Tensor, value: Tensor) -> None:
    """Gives a parameter of a torch module a value, as ``load_state_dict`` does.

    Raises:
        ModelError: if the shapes differ.
    """
    if own.shape != value.shape:
        raise ModelError(
            f"Parameter {name!r} has shape {tuple(value.shape)} in the state, and {tuple(own.shape)} in the module: "
            "this is another module. Make it as it was when the state was saved, or clear the store."
        )
    with torch.no_grad():
        own.copy_(value)


def _leaf(name: str, value: Tensor, constraint: Any, transform: Any) -> Tensor:
    """The unconstrained leaf tensor of a constrained value."""
    if not value.is_floating_point() and not value.is_complex():
        raise ModelError(
            f"Parameter {name!r} starts as {value.dtype}, which has no gradient. Give floating-point values, "
            "e.g. torch.tensor(1.0)."
        )
    with torch.no_grad():
        leaf: Tensor = transform.inv(value).contiguous()
        if settings.validation:
            _check_start(name, value, leaf, constraint, transform)
    if not leaf.is_leaf or (leaf.data_ptr() == value.data_ptr() and not value.requires_grad):
        # An optimizer must not change the tensor of the caller, who may start two parameters from the same
        # one. A tensor that requires a gradient, as a module's parameter does, is meant to be the parameter
        # itself.
        leaf = leaf.detach().clone()
    return leaf.requires_grad_(True)


def _check_start(name: str, value: Tensor, leaf: Tensor, constraint: Any, transform: Any) -> None:
    invalid = (
        bool((leaf.isnan() & ~value.isnan()).any()) if leaf.shape == value.shape else bool(leaf.isnan().any())
    )
    # The inverse clamps where the set is an interval. Sets of whole vectors are left alone: an unnormalised
    # simplex is commonly given, and is normalised by the transform.
    if not invalid and constraint.event_dim == 0 and constraint is not constraints.real:
        outside = ~constraint.check(value)
        invalid = bool((outside & ~torch.isclose(transform(leaf), value, rtol=1e-4, atol=1e-6)).any())
    if invalid:
        raise ModelError(
            f"Parameter {name!r} starts outside of its constraint {constraint}: {value.detach()}. "
            "Give an initial value that lies inside."
        )
