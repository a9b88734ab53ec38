"""A site's tensors without their broadcast dimensions, and a symbol for each dimension that is left.

This is the form in which sum-product routines written for Pyro take them. sumout's own engine works on the
factor graph and needs none of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import opt_einsum
from torch import Tensor

from sumout.effects.message import Message
from sumout.errors import ModelError


def pack_site(site: Message, symbols: dict[int, str]) -> dict[str, Any]:
    """The site's mask and its known log-probabilities, packed under the same keys."""
    packed: dict[str, Any] = {"mask": _pack(site["mask"], symbols, site)}
    for key in ("unscaled_log_prob", "log_prob"):
        if key in site:
            packed[key] = _pack(site[key], symbols, site)
    if "score_parts" in site:
        parts = site["score_parts"]
        packed["score_parts"] = type(parts)(*(_pack(part, symbols, site) for part in parts))
    return packed


class Symbols:
    """One letter a plate and one an enumerated site, the same at every site of a trace."""

    def __init__(self, plates: dict[str, str] | None = None) -> None:
        self.plates = {} if plates is None else plates
        self.sites: dict[str, str] = {}

    def of(self, site: Message) -> dict[int, str]:
        """The letter of each tensor dimension of the site. Plates take even positions, sites odd ones."""
        symbols: dict[int, str] = {}
        for frame in site["cond_indep_stack"]:
            if frame.dim is not None:
                if frame.name not in self.plates:
                    self.plates[frame.name] = _unused(self.plates.values(), start=0)
                symbols[frame.dim] = self.plates[frame.name]
        for dim, name in (site["enum_dims"] or {}).items():
            if name not in self.sites:
                self.sites[name] = _unused(self.sites.values(), start=1)
            symbols[dim] = self.sites[name]
        return symbols


def _unused(used: Iterable[str], start: int) -> str:
    taken = set(used)
    position = start
    while (symbol := opt_einsum.get_symbol(position)) in taken:
        position += 2
    return str(symbol)


def _pack(value: Any, symbols: dict[int, str], site: Message) -> Any:
    if not isinstance(value, Tensor):
        return value
    kept = [dim for dim in range(-value.dim(), 0) if value.shape[dim] > 1]
    unknown = [dim for dim in kept if dim not in symbols]
    if unknown:
        raise ModelError(
            f"Site {site['name']!r} has a tensor of shape {tuple(value.shape)} whose dim {unknown[0]} is "
            f"neither a plate's nor an enumerated site's (known: {sorted(symbols)}). Put the site into a "
            "plate with that dim, or declare the dim part of the event with .to_event(1)."
        )
    packed = value.reshape([value.shape[dim] for dim in kept])
    packed._pyro_dims = "".join(symbols[dim] for dim in kept)  # type: ignore[attr-defined]
    return packed
