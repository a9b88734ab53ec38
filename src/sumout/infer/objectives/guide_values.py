"""A model's run with the values of a guide's run, among which are sites with all their values at once.

A site that the guide enumerates outside of ``markov`` keeps its dimension for good, so the model takes the value as it
is. Inside, dimensions are used again, in an order that depends on the history, and a vectorized chain has one for
many steps; the model may loop in another way. There the model lays the values out anew: it enumerates the site itself,
over the guide's values. Only names tell then which variable is which.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sumout.effects import Message, Messenger, Trace
from sumout.effects.handlers import ReplayMessenger
from sumout.effects.steps import is_lookback, names_in_loop, names_of_steps
from sumout.effects.trace import sample_sites
from sumout.errors import EnumerationError

Owners = dict[int, str]


class GuideValues(ReplayMessenger):
    """Replays a guide's run in a model; handlers around it are ``enum`` with its ``owners``, then ``InModelDims``.

    Args:
        values: the run, with values as they look to programs.
        trace: the same, with dimensions for the values of enumerated sites.
        hidden: whether values look as if nothing were enumerated; each then knows by itself which it is.

    Attributes:
        owners: the dimensions that the guide's enumerated sites outside of ``markov`` have, with the sites' names.
    """

    def __init__(self, values: Trace, trace: Trace, hidden: bool) -> None:
        super().__init__(trace=values)
        self.hidden = hidden
        enumerated = [site for site in sample_sites(trace) if site.enum_dim is not None]
        self.owners: Owners = {
            site.enum_dim: site.name or ""
            for site in enumerated
            if site.enum_dim is not None and not _in_chain(site)
        }
        self._steps: dict[str, Message] = {
            name: site
            for site in enumerated
            if not is_lookback(site)
            for name in (site.name or "", *names_of_steps(site))
        }
        """The enumerated sites by the names that they have in a loop."""

    def _pyro_sample(self, msg: Message) -> None:
        if self._steps and not msg.is_observed and self._lay_out(msg):
            if saw := self._run.saw:
                saw(msg.name)
            return
        around = msg.enum_dims
        super()._pyro_sample(msg)
        before = None if self.trace is None else self.trace.nodes.get(msg.name or "")
        # Dimensions mean something else in this run.
        msg.enum_dims = around
        if self.hidden:
            return
        if before is not None and msg.done and msg.enum_dim is None:
            along = _runs_along(before)
            if any(self.owners.get(dim) != owner for dim, owner in along.items()):
                msg.infer["_guide_dims"] = along
        elif before is None and msg.done and "_chain" in msg.infer:
            self._refuse_steps(msg)

    def _lay_out(self, msg: Message) -> bool:
        """Lets ``enum`` lay out the values of a site that the guide enumerates, if the guide's layout is no use."""
        names = names_in_loop(msg)
        sites = [self._steps[name] for name in names if name in self._steps]
        if not sites or (sites[0].name == msg.name and (self.hidden or not _in_chain(sites[0]))):
            return False
        if sites[0].name != msg.name and not _of_one_chain(msg, sites[0]):
            return False
        if len(sites) < len(names):
            missing = next(name for name in names if name not in self._steps)
            raise EnumerationError(
                f"Site {msg.name!r} stands for several steps of a chain, of which the guide enumerates some and not "
                f"others: {missing!r}. Enumerate or draw all steps alike."
            )
        values = _values(sites[0])
        for other in sites[1:]:
            theirs = _values(other)
            if theirs is not values and not torch.equal(theirs, values):
                raise EnumerationError(
                    f"Site {msg.name!r} stands for several steps of a chain, which have other values in the guide: "
                    f"those of {sites[0].name!r} and {other.name!r} differ. Give all steps one support, or loop in the "
                    "model: markov without dim."
                )
        marks = {key: value for key, value in sites[0].infer.items() if not key.startswith("_")}
        msg.infer = {**msg.infer, **marks, "enumerate": "parallel", "_values": values}
        return True

    def _refuse_steps(self, msg: Message) -> None:
        assert self.trace is not None
        for name in names_in_loop(msg):
            before = self.trace.nodes.get(name)
            if before is not None and _runs_along(before):
                raise EnumerationError(
                    f"Site {msg.name!r} takes the values of several steps of the guide, and {name!r} has one for each "
                    "value of an enumerated site. Loop over the chain in the same way in both programs."
                )


def in_steps(guide: Trace, model: Trace) -> Trace:
    """A guide's run in which chains that are plates are steps, where the model takes the chain in another way.

    A chain with no history is a plate, and its sites have one variable each, with a copy for each step. A model in
    which the steps depend on each other has a variable for each, by another name.
    """
    plates = {
        name: site for name, site in guide.nodes.items() if site.enum_dim is not None and _is_plate(site)
    }
    if not plates:
        return guide
    chains = {_chain(site) for site in sample_sites(model) if _chain(site) and not _is_plate(site)}
    if not chains.intersection(map(_chain, plates.values())):
        return guide
    new = guide.shallow_copy()
    for name, site in plates.items():
        if _chain(site) in chains:
            new.nodes[name] = single = site.copy()
            single.infer["_chain"] = site.infer["_chain"]._replace(independent=False)
    return new


def _chain(site: Message) -> str | None:
    step = site.infer.get("_chain")
    return None if step is None else step.chain


def _is_plate(site: Message) -> bool:
    step = site.infer.get("_chain")
    return step is not None and step.independent


class InModelDims(Messenger):
    """Moves what the guide drew for each value of enumerated sites to the dimensions that these have in the model."""

    def _pyro_sample(self, msg: Message) -> None:
        along = msg.infer.pop("_guide_dims", None)
        if along is None:
            return
        dims = {owner: dim for dim, owner in (msg.enum_dims or {}).items()}
        lacking = [owner for owner in along.values() if owner not in dims]
        if lacking:
            raise EnumerationError(
                f"The guide draws site {msg.name!r} for each value of {lacking[0]!r}, which the model does not see "
                f"there. Draw {lacking[0]!r} before {msg.name!r} in the model too, within the history of its markov "
                "context; or leave markov out of the guide."
            )
        event_dim = msg.plain_fn.event_dim
        msg.value = _moved(msg.value, {dim: dims[owner] for dim, owner in along.items()}, event_dim)


def _in_chain(site: Message) -> bool:
    return "_markov_scope" in site.infer or "_chain" in site.infer


def _of_one_chain(of_model: Message, of_guide: Message) -> bool:
    """Whether steps by name are steps of one chain; a loop without a name may be any."""
    return _chain(of_model) is not None and _chain(of_guide) in (None, _chain(of_model))


def _values(site: Message) -> Tensor:
    """The values of an enumerated site along dimension 0, then its batch shape where they vary along plates."""
    assert site.enum_dim is not None
    fn, value = site.plain_fn, site.value
    if site.infer.get("num_samples") is not None:
        along = _runs_along(site)
        if len(along) > 1:
            raise EnumerationError(
                f"Site {site.name!r} of the guide has samples for each value of {sorted(along.values())}, inside "
                "markov. Leave markov out of the guide."
            )
        value = value.unsqueeze(0).transpose(0, site.enum_dim - fn.event_dim)
        rank = max((-frame.dim for frame in site.cond_indep_stack if frame.dim is not None), default=0)
        return value.reshape(len(value), *value.shape[value.dim() - rank - fn.event_dim :])  # type: ignore[no-any-return]
    support: Tensor = fn.enumerate_support(expand=False)
    return support.reshape(len(support), *fn.event_shape)


def _runs_along(site: Message) -> Owners:
    """The dimensions of enumerated sites along which a site's value varies."""
    if not isinstance(site.value, Tensor) or not site.enum_dims:
        return {}
    event_dim = site.plain_fn.event_dim
    rank = site.value.dim() - event_dim
    return {
        dim: owner
        for dim, owner in site.enum_dims.items()
        if rank >= -dim and site.value.shape[dim - event_dim] > 1
    }


def _moved(value: Tensor, to: Mapping[int, int], event_dim: int) -> Tensor:
    """A tensor with batch dimensions moved to others; those that are left behind have size one."""
    rank = max([value.dim() - event_dim, *(-dim for dim in to.values())])
    value = value.reshape((1,) * (rank + event_dim - value.dim()) + value.shape)
    kept = [dim for dim in range(-rank, 0) if dim not in to and value.shape[dim - event_dim] > 1]
    source: dict[int, int] = {dim: dim for dim in kept} | {new: old for old, new in to.items()}
    order = [rank + source[dim] for dim in sorted(source)]
    rest = [dim for dim in range(rank) if dim not in order]
    sizes = [value.shape[source[dim] - event_dim] if dim in source else 1 for dim in range(-rank, 0)]
    permuted = value.permute(*rest, *order, *range(rank, value.dim()))
    return permuted.reshape(*sizes, *value.shape[rank:])
