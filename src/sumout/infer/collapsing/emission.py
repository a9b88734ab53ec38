"""What is left of collapsed sites, sent to the handlers outside as factors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor

from sumout.distributions import Unit
from sumout.effects import CondIndepStackFrame, Message, Trace, apply_stack
from sumout.effects.stack import state
from sumout.errors import EnumerationError
from sumout.lower.collapse.collapse import Integral
from sumout.lower.collapse.parameters import with_numbers
from sumout.lower.collapse.sites import CollapsedSite


def homes(sites: Iterable[CollapsedSite], traces: Sequence[Trace]) -> dict[str, frozenset[str]]:
    """The plates of the enumerated sites that collapsed sites may depend on.

    They are looked up in the records of the run, in that of the context itself first. One that no record has may live
    in any of the plates in which it is used.
    """
    found: dict[str, frozenset[str]] = {}
    sites = list(sites)
    own = {site.name: site.message for site in sites}
    for site in sites:
        for name in (site.message.enum_dims or {}).values():
            if name in found:
                continue
            record = next((trace.nodes[name] for trace in traces if name in trace.nodes), None)
            record = record or own.get(name, site.message)
            found[name] = frozenset(frame.name for frame in record.cond_indep_stack if frame.dim is not None)
    return found


def emit(
    integral: Integral,
    sites: Iterable[CollapsedSite],
    predicted: Sequence[CollapsedSite] = (),
    drawn: Mapping[str, Tensor] = MappingProxyType({}),
) -> None:
    """Sends an integral outwards as a factor over its discrete variables and plates.

    Args:
        integral: what is sent.
        sites: all that were integrated out, and what depends on them.
        predicted: sites that integrate to one; the factor keeps them for whoever asks.
        drawn: values that its sites were given at a barrier.

    Raises:
        EnumerationError: if two of its discrete variables run along one dimension.
    """
    dims: dict[str, int] = {}
    frames: dict[str, CondIndepStackFrame] = {}
    for site in sites:
        for frame in site.message.cond_indep_stack:
            if frame.dim is not None:
                dims[frame.name] = frame.dim
        frames.update({frame.name: frame for frame in site.inner})
        for dim, name in (site.message.enum_dims or {}).items():
            dims.setdefault(name, dim)
    by_dim: dict[int, str] = {}
    for name in integral.names:
        other = by_dim.setdefault(dims[name], name)
        if other != name:
            first, rest = list(integral.latents)[:3], len(integral.latents) - 3
            listed = ", ".join(map(repr, first)) + (f" and {rest} more" if rest > 0 else "")
            raise EnumerationError(
                f"The values of sites {other!r} and {name!r} run along one dim, {dims[name]}, and the collapsed sites "
                f"{listed} depend on both: markov gave the dim of what was out of reach away. Raise "
                "`history`, or leave markov out; or collapse(approximate='moment_matching') for a switching system."
            )
    inner = [frame for name, frame in frames.items() if name in integral.names]
    name = "_collapsed_" + integral.first
    deepest = -min([dim for site in sites for dim in site.frames], default=0)
    owners = {dims[each]: each for each in integral.discrete}
    infer = {"is_auxiliary": True, "_integral": integral, "_dims": dims, "_nesting": deepest}
    infer.update(_predicted=predicted, _drawn=drawn)
    if integral.step is not None:
        infer["_chain"] = integral.step
    if integral.approximation is not None:
        infer["approximate"] = integral.approximation
    _send(name, _placed(integral.log_evidence, integral.names, dims), inner, infer, owners)


def with_table(site: Message, table: Tensor) -> Message:
    """The factor that an integral left, with other numbers along the same dimensions."""
    found = site.copy()
    found.fn = Unit(_placed(table, site.infer["_integral"].names, site.infer["_dims"]))
    return found


def emit_discrete(site: CollapsedSite) -> None:
    """Sends an enumerated site outwards whose density is part of an integral: its values, and no density."""
    if not state.stack:
        return
    msg = site.message
    infer = {key: each for key, each in msg.infer.items() if key not in ("_collapse", "_do_not_trace")}
    fn = with_numbers(site.fn, lambda value: value.probe).mask(False)
    apply_stack(
        Message(
            type="sample",
            name=site.name,
            fn=fn,
            value=site.value,
            infer=infer,
            cond_indep_stack=site.inner,
            done=True,
            enum_dim=msg.enum_dim,
            enum_dims=dict(msg.enum_dims or {}),
        )
    )


def emit_observed(site: CollapsedSite) -> None:
    """Sends outwards a site that turned out to be observed, by a handler outside, and to depend on no delayed one."""
    log_prob = site.fn.log_prob(site.value)
    if site.mask is not None:
        log_prob = log_prob * site.mask
    weight = site.weight
    _send(site.name, log_prob * weight, [frame for frame in site.inner if frame.dim is not None])


def _placed(table: Tensor, names: Sequence[str], dims: Mapping[str, int]) -> Tensor:
    """The table with each of its dimensions where the program has it."""
    order = sorted(range(len(names)), key=lambda place: dims[names[place]])
    table = table.permute(order)
    shape = [1] * -min([dims[name] for name in names], default=0)
    for place, size in zip(order, table.shape, strict=True):
        shape[dims[names[place]]] = size
    return table.reshape(shape)


def _send(
    name: str,
    log_factor: Tensor,
    inner: Sequence[CondIndepStackFrame],
    infer: dict[str, Any] | None = None,
    owners: Mapping[int, str] | None = None,
) -> None:
    if not state.stack:
        return
    fn = Unit(log_factor)
    infer = {"is_auxiliary": True} if infer is None else infer
    msg = Message(
        type="sample",
        name=name,
        fn=fn,
        value=fn.sample(),
        is_observed=True,
        infer=infer,
        enum_dims=None if owners is None else dict(owners),
        cond_indep_stack=tuple(inner),
    )
    for frame in inner:
        msg.scale = msg.scale * frame.scale
    apply_stack(msg)
