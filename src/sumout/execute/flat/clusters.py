"""Steps of a plan merged into clusters: fewer, larger operations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sumout.execute.flat.positions import Names, entries_of
from sumout.plan import EliminationPlan


class Cluster(NamedTuple):
    """Steps that are done as one: ``inputs`` (factors or other clusters) are multiplied over all dimensions of
    ``scope``, of which ``out`` comes first, and all but ``out`` is summed out."""

    inputs: tuple[int, ...]
    scope: Names
    out: Names


def merged(
    plan: EliminationPlan, sizes: Mapping[str, int], merge: int
) -> tuple[dict[int, Cluster], list[int]]:
    """The steps of a plan as clusters by the number of their last step, and the clusters without a parent.

    A step is merged into the one that reads its result if the joint table is not larger than ``merge``, or than either
    alone.
    """
    dims = plan.elimination.dims
    factors = len(plan.structure.factors) + len(plan.probes)
    clusters: dict[int, Cluster] = {}
    for node, step in enumerate(plan.elimination.steps, start=factors):
        scope = dict.fromkeys(name for each in step.args for name in dims[each])
        inputs = list(step.args)
        for each in step.args:
            if each in clusters:
                wider = scope | dict.fromkeys(clusters[each].scope)
                most = max(merge, entries_of(scope, sizes), entries_of(clusters[each].scope, sizes))
                if entries_of(wider, sizes) <= most:
                    scope = wider
                    inputs.remove(each)
                    inputs += clusters.pop(each).inputs
        out = dims[node]
        clusters[node] = Cluster(tuple(inputs), (*out, *(name for name in scope if name not in out)), out)
    roots = []
    for total in plan.elimination.totals:
        if total.node in clusters:
            roots.append(total.node)
        else:  # A factor that is a number: it needs a cluster to be the input of.
            clusters[len(dims) + total.node] = Cluster((total.node,), (), ())
            roots.append(len(dims) + total.node)
    return clusters, roots
