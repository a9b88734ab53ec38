"""Telling whether a kept log-probability still belongs to its site.

A site can be edited by assigning to it and by changing its tensors in place. Assignments show in the
identity of what the site holds, in-place changes in the version counters that torch gives every tensor.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.transforms import Transform
from torch.nn import Module

Place = tuple[dict[str, Any], str, Tensor]  # an attribute: its owner's dictionary, its name, its value


class Snapshot(NamedTuple):
    """What a site's log-probability was computed from, at that time.

    ``exact`` is false where a tensor has no version counter (inference mode): nothing can be promised.
    """

    parts: tuple[Any, ...]
    keywords: tuple[str, ...]
    places: tuple[Place, ...]
    versions: tuple[tuple[Tensor, int], ...]
    exact: bool

    @staticmethod
    def of(site: Any) -> Snapshot:
        """The present contents of a site: distribution, value, arguments, scale and mask."""
        parts = _parts(site)
        places = tuple(_tensors_in(site.fn))
        tensors = [part for part in (*parts, *site.args) if isinstance(part, Tensor)]
        tensors += [tensor for _, _, tensor in places]
        exact = not any(tensor.is_inference() for tensor in tensors)
        versions = tuple((tensor, tensor._version) for tensor in tensors) if exact else ()
        return Snapshot(parts, tuple(site.kwargs), places, versions, exact)

    def holds(self, site: Any) -> bool:
        """Whether the site still has the same contents, unchanged."""
        parts = _parts(site)
        return (
            len(parts) == len(self.parts)
            and all(map(operator.is_, parts, self.parts))
            and tuple(site.kwargs) == self.keywords
            and all(owner.get(name) is tensor for owner, name, tensor in self.places)
            and all(tensor._version == version for tensor, version in self.versions)
        )


def _parts(site: Any) -> tuple[Any, ...]:
    return (site.fn, site.value, site.args, site.scale, site.mask, *site.kwargs.values())


def _tensors_in(fn: Any) -> Iterator[Place]:
    """The tensors that a distribution holds, those of its base distributions, transforms and modules too."""
    waiting: list[dict[str, Any]] = [getattr(fn, "__dict__", {})]
    seen = {id(fn)}  # a transform and its inverse hold each other
    while waiting:
        attributes = waiting.pop()
        for name, value in attributes.items():
            if isinstance(value, Tensor):
                yield attributes, name, value
                continue
            if isinstance(value, dict):  # where modules keep their parameters
                held: Iterable[Any] = value.values()
                yield from ((value, key, each) for key, each in value.items() if isinstance(each, Tensor))
            else:
                held = value if isinstance(value, (list, tuple)) else (value,)
            for each in held:
                if isinstance(each, (Distribution, Transform, Module)) and id(each) not in seen:
                    seen.add(id(each))
                    waiting.append(vars(each))


@dataclass(slots=True)
class Kept:
    """Derived values of a site with what they belong to.

    ``provisional`` names those that must be made anew where it matters: computed without gradients, they are
    no use once gradients are wanted; computed from tensors without version counters, they may be stale.
    Values that were assigned are never provisional.
    """

    snapshot: Snapshot
    values: dict[str, Any]
    provisional: frozenset[str] = frozenset()

    def usable(self) -> dict[str, Any]:
        """The values that need no recomputation now, if the snapshot holds."""
        if not self.provisional or (self.snapshot.exact and not torch.is_grad_enabled()):
            return self.values
        return {key: value for key, value in self.values.items() if key not in self.provisional}
