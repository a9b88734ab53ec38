"""A site's log-probability, as functions of the site: nothing here is stored, so nothing can go stale."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Score(NamedTuple):
    """``unscaled_log_prob`` has the batch shape of the site; ``log_prob`` is scaled and masked."""

    unscaled_log_prob: Tensor
    log_prob: Tensor

    @property
    def log_prob_sum(self) -> Tensor:
        """The sum over all elements, a scalar."""
        return self.log_prob.sum()


def apply_mask(log_prob: Tensor, mask: bool | Tensor | None) -> Tensor:
    """Replaces the elements that ``mask`` excludes by zero; they may be -inf or NaN."""
    if mask is None or mask is True:
        return log_prob
    if mask is False:
        return torch.zeros_like(log_prob)
    # where(), not a product: 0 * -inf would be NaN.
    return torch.where(mask, log_prob, log_prob.new_zeros(()))


def apply_scale(log_prob: Tensor, scale: float | Tensor) -> Tensor:
    """Multiplies by ``scale``, without an operation where it is one."""
    if isinstance(scale, Tensor) or scale != 1.0:
        return log_prob * scale
    return log_prob


def score(site: Any) -> Score:
    """The log-probability of a sample site's value under its distribution.

    Args:
        site: a message of type ``"sample"``: ``fn, value, args, kwargs, scale, mask`` are read.
            A plain number is scored as a tensor of the distribution's type.

    Raises:
        ValueError: what the distribution says of the value, preceded by the site's name.
    """
    unscaled = unscaled_log_prob(site, site.fn)
    return Score(unscaled, scale_and_mask(unscaled, site))


def unscaled_log_prob(site: Any, fn: Any) -> Tensor:
    """A site's log-probability under ``fn``, before its scale and mask; raises as ``score`` does."""
    try:
        result: Tensor = fn.log_prob(_value(site, fn), *site.args, **site.kwargs)
    except ValueError as error:
        raise ValueError(f"While scoring site {site.name!r}: {error}") from error
    return result


def scale_and_mask(log_prob: Tensor, site: Any) -> Tensor:
    """What a site's ``mask`` and ``scale`` leave of its log-probability."""
    return apply_scale(apply_mask(log_prob, site.mask), site.scale)


def _value(site: Any, fn: Any) -> Any:
    """The value as distributions take it: a tensor, also where it is a plain number."""
    value = site.value
    if isinstance(value, Tensor) or not isinstance(value, numbers.Real):
        return value
    return torch.tensor(float(value), dtype=_dtype(fn))


def _dtype(fn: Any) -> torch.dtype:
    parameters = (each for each in vars(fn).values() if isinstance(each, Tensor) and each.is_floating_point())
    first = next(parameters, None)
    return torch.get_default_dtype() if first is None else first.dtype


def derive(site: Any, key: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """A derived value of a sample site, and what was found on the way, from those that are known already.

    Raises:
        ValueError: what the distribution says of the value, preceded by the site's name.
    """
    found = dict(known)
    if key == "score_parts":
        try:
            fn = site.fn
            parts = fn.score_parts(_value(site, fn), *site.args, **site.kwargs)
        except ValueError as error:
            raise ValueError(f"While scoring site {site.name!r}: {error}") from error
        scaled = parts.scale_and_mask(site.scale, site.mask)
        return {"unscaled_log_prob": parts.log_prob, "log_prob": scaled.log_prob, **known, key: scaled}
    if "unscaled_log_prob" not in found and (key == "unscaled_log_prob" or "log_prob" not in found):
        found["unscaled_log_prob"] = unscaled_log_prob(site, site.fn)
    if key != "unscaled_log_prob":
        if "log_prob" not in found:
            found["log_prob"] = scale_and_mask(found["unscaled_log_prob"], site)
        if key == "log_prob_sum":
            found["log_prob_sum"] = found["log_prob"].sum()
    return found
