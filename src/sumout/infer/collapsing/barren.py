"""Sites that depend on collapsed ones and that nothing observed depends on: they integrate to one.

A prediction is one, ``new`` in ``sample("new", Poisson(rate))``. Its distribution is wanted all the same; where it is
Gaussian, it stays in the integral, which tells it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from sumout.distributions.conjugacy import GAUSSIAN
from sumout.distributions.families import innermost
from sumout.effects import Message, Trace
from sumout.effects.delayed import Delayed
from sumout.effects.steps import is_lookback
from sumout.effects.trace import sample_sites
from sumout.errors import ModelError
from sumout.infer.collapsing.recorded import delayed_value
from sumout.lower.collapse.collapse import Integral, collapsed
from sumout.lower.collapse.moment_matching import Told
from sumout.lower.collapse.normal import normal_form, own_mask
from sumout.lower.collapse.parameters import delayed_parameters
from sumout.lower.collapse.sites import CollapsedSite

Sites = Sequence[CollapsedSite]


def is_discrete_latent(site: CollapsedSite) -> bool:
    """Whether a site is summed out, or was given a value, rather than integrated out."""
    return not site.message.is_observed and not isinstance(site.value, Delayed)


def without_unused(sites: Sites, traces: Sequence[Trace]) -> list[CollapsedSite]:
    """The sites, with enumerated ones on whose values nothing depends delayed in place of summed out."""
    found = list(sites)
    recorded = [site for trace in traces for site in sample_sites(trace) if not _is_computed(site)]
    for place, site in reversed(list(enumerate(sites))):
        dim = site.message.enum_dim
        if dim is not None and is_discrete_latent(site):
            others = [each.message for each in found if each is not site] + recorded
            if not any(_varies(each, dim, site.name) for each in others):
                single = site.message.copy()
                single.value = delayed_value(single)
                single.enum_dims = {at: name for at, name in (single.enum_dims or {}).items() if at != dim}
                found[place] = site._replace(message=single)
                for trace in traces:
                    for name, each in list(trace.nodes.items()):
                        if each.type == "sample" and _is_computed(each) and _varies(each, dim, site.name):
                            trace.remove_node(name)
    return found


def _is_computed(site: Message) -> bool:
    """Whether it is a record of what the program computes, such as a value with what is missing filled in."""
    return bool(site.infer.get("_deterministic"))


def _varies(message: object, dim: int, name: str) -> bool:
    """Whether a site depends on the values of an enumerated one that run along a dimension."""
    owners = getattr(message, "enum_dims", None) or {}
    if owners.get(dim) != name:
        return False
    fn, value = message.plain_fn, message.value  # type: ignore[attr-defined]
    shapes = [tuple(getattr(fn, "batch_shape", ()))]
    if isinstance(value, Tensor):
        shapes.append(tuple(value.shape[: value.dim() - fn.event_dim]))
    return any(len(shape) >= -dim and shape[dim] > 1 for shape in shapes)


def integrated(
    sites: Sites, discrete: Mapping[str, frozenset[str]], told: Sequence[Told] | None = None
) -> tuple[list[Integral], tuple[CollapsedSite, ...]]:
    """All integrals, and the sites that are left out of them, as nothing observed depends on them.

    Raises:
        ModelError: as ``collapsed``.
    """
    barren = _barren(sites)
    if not barren:
        return collapsed(sites, discrete, told), ()
    for wanted in (_is_gaussian, _is_normal, _is_normal_without_choices):
        kept = _kept(sites, barren, wanted)
        left = [site for site in sites if site.name not in barren or site.name in kept]
        _check_gone(sites, left)
        if not kept:
            break
        try:
            return collapsed(left, discrete, told), _without(sites, left)
        except ModelError:
            continue  # Others than these may be known: nothing that is asked of those depends on them.
    left = [site for site in sites if site.name not in barren]
    _check_gone(sites, left)
    return collapsed(left, discrete, told), _without(sites, left)


def _kept(sites: Sites, barren: set[str], wanted: Callable[[CollapsedSite], bool]) -> set[str]:
    """The sites on which nothing observed depends that may be integrated with the others, as these tell them."""
    known = {site.name for site in sites if site.is_latent} - barren
    found = set()
    for site in sites:
        if site.name in barren and _parents(site) <= known and wanted(site) and not _is_masked(site):
            known.add(site.name)
            found.add(site.name)
    return found


def _is_gaussian(site: CollapsedSite) -> bool:
    return type(innermost(site.fn)) in GAUSSIAN


def _is_normal(site: CollapsedSite) -> bool:
    return normal_form(site.fn, site.value) is not None


def _is_normal_without_choices(site: CollapsedSite) -> bool:
    """Whether no discrete site, each element of whose plates would be tied to all others, chooses its parameters."""
    return _is_normal(site) and not site.enumerated(site.message.batch_shape)


def _without(sites: Sites, left: Sites) -> tuple[CollapsedSite, ...]:
    names = {site.name for site in left}
    return tuple([site for site in sites if site.name not in names])


def _barren(sites: Sites) -> set[str]:
    """The names of latent sites that depend on others, and on which only barren sites depend."""
    needed: set[str] = set()
    found: set[str] = set()
    for site in reversed(sites):
        parents = _parents(site)
        if site.is_latent and parents and site.name not in needed and not is_lookback(site.message):
            found.add(site.name)
        else:
            needed |= parents
    return found


def _check_gone(sites: Sites, left: Sites) -> None:
    """Refuses to leave sites out whose density does not integrate to one."""
    kept = {site.name for site in left}
    for site in sites:
        if site.name in kept:
            continue
        if isinstance(site.weight, Tensor) or site.weight != 1.0:
            raise ModelError(
                f"Site {site.name!r} is latent, depends on delayed sites, and is scaled: its integral has no closed "
                "form. Put scale around the observations only."
            )


def _is_masked(site: CollapsedSite) -> bool:
    """Whether elements are absent, as those of ``obs_mask`` are that are observed."""
    for mask in (site.mask, own_mask(site.fn)):
        if mask is False or (isinstance(mask, Tensor) and not bool(mask.all())):
            return True
    return False


def _parents(site: CollapsedSite) -> set[str]:
    values = delayed_parameters(site.fn)
    if isinstance(site.value, Delayed) and not site.is_latent:
        values = [*values, site.value]
    return {name for value in values for name in value.sites}
