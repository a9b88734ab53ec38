"""Whether quadratic forms keep enough digits, where noise is much smaller than what it is noise of.

A form with precisions ``p`` and ``q`` loses the digits of ``p / q`` when a variable is integrated out of it. Its square
root loses half as many: a triangular decomposition of all residuals side by side, which knows no structure and is used
to check the result only.

Source: Bierman, *Factorization Methods for Discrete Sequential Estimation* (1977), chapter 5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sumout.effects.delayed import Delayed
from sumout.errors import ModelError
from sumout.lower.collapse.component import Component
from sumout.lower.collapse.gaussian import Member
from sumout.lower.collapse.sites import CollapsedSite

_SUSPECT = 1e-8
"""The relative error of forms from which on their result is checked."""
_HOPELESS = 1e-2
"""The one that is too much where nothing can be checked."""
_WRONG = 1e-6
"""The relative error of the result that is too much."""
_MOST_ENTRIES = 2**20
"""Of the matrix of all residuals."""


def check_digits(
    solved: Component, members: Sequence[Member], latents: Mapping[str, CollapsedSite], table: Tensor
) -> None:
    """Raises ``ModelError`` if an evidence has lost its digits."""
    with torch.no_grad():
        error = _spread(solved) * torch.finfo(table.dtype).eps
        if error < _SUSPECT:
            return
        exact = _by_roots(members, latents, table.dtype)
        if exact is None:
            wrong = error > _HOPELESS
        else:
            wrong = not bool((exact - table.sum()).abs() <= _WRONG * (1 + exact.abs()))
    if wrong:
        raise ModelError(
            f"The integral over {', '.join(map(repr, list(latents)[:8]))} loses its digits: noise of some sites is "
            "smaller than that of others by too many orders of magnitude. Let what is nearly determined be "
            "determined: use the value that it is computed from in its place; or use more noise."
        )


def _spread(solved: Component) -> float:
    """The largest precision of factors that tie variables together, by the smallest one of all factors."""
    of_shape: dict[torch.Size, list[Tensor]] = {}  # There may be thousands of them.
    for factor in solved.factors:
        of_shape.setdefault(factor.form.shape, []).append(factor.form)
    largest, smallest = 0.0, math.inf
    for shape, forms in of_shape.items():
        if 0 in shape:
            continue
        own = torch.stack(forms).diagonal(dim1=-2, dim2=-1)[..., 1:]
        own = own[own > 0]
        if own.numel():
            smallest = min(smallest, float(own.min()))
            if shape[-1] > 2:
                largest = max(largest, float(own.max()))
    return largest / smallest if largest else 0.0


def _by_roots(
    members: Sequence[Member], latents: Mapping[str, CollapsedSite], dtype: torch.dtype
) -> Tensor | None:
    """The logarithm of the evidence of everything; ``None`` if some sites choose, are subsampled, or are too many."""
    starts: dict[str, int] = {}
    size = 0
    for name, latent in latents.items():
        starts[name] = size
        size += latent.value.numel()
    rows, logs, count = [], torch.zeros((), dtype=dtype), 0
    for each in members:
        site, form = each.site, each.form
        if any(frame.dim is not None and frame.scale != 1.0 for frame in site.inner):
            return None
        if site.enumerated(each.batch):
            return None
        plates = [1] * max([0, *[-dim for dim in site.frames]])
        for dim, frame in site.frames.items():
            plates[dim] = frame.size
        event = tuple(site.fn.event_shape)
        batch = torch.broadcast_shapes(each.batch, tuple(plates))  # type: ignore[no-untyped-call]
        full = (*batch, *event)
        number = math.prod(full)
        count += number
        if count * (size + 1) > _MOST_ENTRIES:
            return None
        residual = form.residual.expand(full)
        offset = residual.const if isinstance(residual, Delayed) else residual
        joint = torch.zeros(number, size + 1, dtype=dtype)
        joint[:, size] = offset.to(dtype).reshape(-1)
        if isinstance(residual, Delayed):
            for link in residual.links:
                where = starts[link.site] + link.where.clamp(min=0).movedim(0, -1).reshape(number, -1)
                joint.scatter_add_(1, where, link.coef.to(dtype).movedim(0, -1).reshape(number, -1))
        power = torch.as_tensor(each.power, dtype=dtype)
        power = power.reshape([*power.shape, *[1] * len(event)]).expand(full).reshape(-1)
        joint[power == 0] = 0.0
        if form.scale_tril is None:
            assert form.scale is not None
            scale = form.scale.to(dtype).expand(full).reshape(-1)
            joint, log = joint / scale.unsqueeze(-1), -scale.log()
        else:
            tril = form.scale_tril.to(dtype).expand(*full, event[-1])
            stacked = joint.reshape(*full, size + 1)
            joint = torch.linalg.solve_triangular(tril, stacked, upper=False).reshape(number, -1)
            log = -tril.diagonal(dim1=-2, dim2=-1).log().reshape(-1)
        log = log - 0.5 * math.log(2 * math.pi)
        if form.log_jacobian is not None:
            log = log + form.log_jacobian.to(dtype).expand(full).reshape(-1)
        rows.append(joint * power.sqrt().unsqueeze(-1))
        logs = logs + (log * power).sum()
    stacked = torch.cat(rows)
    if len(stacked) < size + 1:
        stacked = torch.cat([stacked, stacked.new_zeros(size + 1 - len(stacked), size + 1)])
    # Large rows first: so the decomposition is accurate row by row.
    stacked = stacked[stacked[:, :size].abs().amax(1).argsort(descending=True)] if size else stacked
    root = torch.linalg.qr(stacked, mode="r").R.diagonal()
    found: Tensor = logs - root[:size].abs().log().sum() - 0.5 * root[size] ** 2
    return found + 0.5 * size * math.log(2 * math.pi)
