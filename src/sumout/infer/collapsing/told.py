"""What a program says of its discrete sites besides what collapsed ones do."""

from __future__ import annotations

from collections.abc import Mapping

from sumout.effects import Trace
from sumout.effects.trace import sample_sites
from sumout.lower.collapse.moment_matching import Table, Told
from sumout.lower.lower import lower_site


def told_of(trace: Trace, after: Mapping[str, int], discrete: Mapping[str, frozenset[str]]) -> list[Told]:
    """The log-densities of a run's sites that depend on discrete ones.

    Args:
        trace: the run.
        after: how many delayed sites came before a site.
        discrete: the discrete sites, and their plates, whose elements are told apart.
    """
    plates = frozenset().union(*discrete.values())
    found = []
    for site in sample_sites(trace):
        if site.infer.get("is_auxiliary"):
            continue
        factor = lower_site(site)
        if not set(factor.inputs).intersection(discrete):
            continue
        gone = [
            place for place, name in enumerate(factor.inputs) if name not in plates and name not in discrete
        ]
        data = factor.data * factor.scale
        names = tuple([name for place, name in enumerate(factor.inputs) if place not in gone])
        found.append(Told(after.get(site.name or "", 0), Table(names, data.sum(gone) if gone else data)))
    return found
