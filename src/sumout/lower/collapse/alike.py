"""Sites that differ in nothing but numbers, such as the steps of a loop: their factors are worked out together."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sumout.effects import CondIndepStackFrame, Message
from sumout.effects.delayed import Delayed
from sumout.effects.delayed.links import compact
from sumout.effects.steps import unrolled_step
from sumout.lower.collapse.gaussian import Member, member, power_of
from sumout.lower.collapse.layout import use_of
from sumout.lower.collapse.normal import NormalForm
from sumout.lower.collapse.sites import CollapsedSite

NormalSite = tuple[CollapsedSite, NormalForm]


def members_of(sites: Sequence[NormalSite], latents: Mapping[str, CollapsedSite], dtype: Any) -> list[Member]:
    """The sites as members, those that are alike as one with copies; in the order of the first of each kind.

    Args:
        sites: Gaussian sites, no scale of which is unknown.
        latents: all delayed sites.
        dtype: of their factors.
    """
    if any(unrolled_step(latent.message) is not None for latent in latents.values()):
        return [member(*each, latents, dtype) for each in sites]
    homes = {name: _home(latent) for name, latent in latents.items()}
    groups: dict[Hashable, list[NormalSite]] = {}
    for each in sites:
        groups.setdefault(_kind(*each, homes), []).append(each)
    return [_together(group, latents, dtype) for group in groups.values()]


class _Layout(NamedTuple):
    """What is told of a tensor without a look at its numbers."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: Any
    requires_grad: bool


def _layout(x: Any) -> Hashable:
    return _Layout(x.shape, x.stride(), x.dtype, x.requires_grad) if isinstance(x, Tensor) else x


def _frames(frames: Sequence[CondIndepStackFrame]) -> Hashable:
    """The plates; which turn of a loop it is does not matter."""
    return tuple([(each.name, each.dim, each.size, each.full_size) for each in frames])


def _around(message: Message, inner: Sequence[CondIndepStackFrame]) -> Hashable:
    owners = message.enum_dims
    return _frames(message.cond_indep_stack), _frames(inner), tuple(sorted(owners.items())) if owners else ()


def _home(latent: CollapsedSite) -> Hashable:
    """What members see of a delayed site."""
    return latent.value.shape, latent.fn.event_shape, _around(latent.message, latent.inner)


def _kind(site: CollapsedSite, form: NormalForm, homes: Mapping[str, Hashable]) -> Hashable:
    """What is the same for sites that are alike: all but the numbers of their parameters and data."""
    residual = form.residual
    if not isinstance(residual, Delayed) or form.unit is not None:
        return object()
    links = []
    for link in residual.links:
        where = link.where
        base = where if where._base is None else where._base
        if not getattr(base, "are_positions", False):
            return object()
        places = where.shape, where.stride(), where.storage_offset()
        links.append((places, _layout(link.coef), homes[link.site]))
    parts = residual.shift, form.scale, form.scale_tril, form.log_jacobian, power_of(site)
    return (
        *links,
        *map(_layout, parts),
        residual.shape,
        site.fn.event_shape,
        _around(site.message, site.inner),
    )


def _together(alike: Sequence[NormalSite], latents: Mapping[str, CollapsedSite], dtype: Any) -> Member:
    first = member(*alike[0], latents, dtype)
    if len(alike) == 1:
        return first
    shape, batch = first.form.residual.shape, (len(alike), *first.batch)
    forms = [form for _, form in alike]
    residuals = [form.residual for form in forms if isinstance(form.residual, Delayed)]

    def beside(parts: Sequence[Any], goal: Sequence[int], lead: int = 0) -> Any:
        return parts[0] if not isinstance(parts[0], Tensor) else _beside(parts, goal, lead)

    links = []
    for place, link in enumerate(residuals[0].links):
        links.append(
            link._replace(
                where=_beside([link.where] * len(alike), shape, 1),
                coef=_beside([each.links[place].coef for each in residuals], shape, 1),
            )
        )
    form = NormalForm(
        Delayed.made(
            residuals[0].probe.expand(len(alike), *shape),
            tuple(links),
            beside([each.shift for each in residuals], shape),
        ),
        beside([each.scale for each in forms], shape),
        beside([each.scale_tril for each in forms], (*shape, shape[-1] if shape else 1)),
        beside([each.log_jacobian for each in forms], shape),
    )
    uses = {link.site: use_of(link, latents[link.site]) for link in links}
    power = beside([power_of(site) for site, _ in alike], first.batch)
    copies = tuple([tuple([link.site for link in each.links]) for each in residuals])
    return first._replace(form=form, uses=uses, batch=batch, power=power, copies=copies)


def _beside(parts: Sequence[Tensor], goal: Sequence[int], lead: int) -> Tensor:
    """Tensors of one layout that broadcast to a shape, along a new dimension behind the first ``lead`` ones.

    What is the same tensor in all of them is not repeated.
    """
    few = [compact(each) for each in parts]
    alone = all(_is_same(few[0], each) for each in few)
    found = (few[0].unsqueeze(0) if alone else torch.stack(few)).movedim(0, lead)
    missing = lead + 1 + len(goal) - found.ndim
    found = found.reshape(*found.shape[: lead + 1], *[1] * missing, *found.shape[lead + 1 :])
    return found.expand(*parts[0].shape[:lead], len(parts), *goal)


def _is_same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one layout are the same numbers for sure, also for derivatives."""
    if one is other:
        return True
    base = one._base
    if base is not None and base is other._base and one.data_ptr() == other.data_ptr():
        return True
    return one.numel() == 1 and not one.requires_grad and bool(one.item() == other.item())
