"""A plan laid out in flat arrays: what is gathered where, level by level, all of it made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sumout.execute.flat.clusters import Cluster, merged
from sumout.execute.flat.positions import (
    Array,
    Names,
    by_cluster,
    entries_of,
    positions_of,
    starts_of,
    strides_of,
)
from sumout.execute.flat.scaling import scaled_levels
from sumout.plan import EliminationPlan
from sumout.plan.structure import Readout

_NONE = np.zeros(0, dtype=np.intp)


class Level(NamedTuple):
    """All clusters of one distance from the root, laid out one after another in the flat arrays.

    ``joint`` is their part of the joint entries and ``messages`` that of the results. ``gather`` has the positions of
    what is multiplied into the joint entries, in runs: of every cluster's first input, of every second, ...; ``reach``
    is how many joint entries each run covers, from the first. ``starts`` are the joint entries at which the segment of
    each message begins, ``rows`` the message of each joint entry. ``back`` lists this level's joint entries message by
    message of the next level, and ``back_starts`` where each begins in the list. Where results are to be scaled,
    ``scaled`` has the first message of each cluster and the cluster of each message.
    """

    joint: slice
    messages: slice
    gather: Array
    reach: tuple[int, ...]
    starts: Array
    rows: Array
    back: Array
    back_starts: Array
    scaled: tuple[Array, Array] | None


class Layout:
    """The arrays of a flat program.

    Args:
        plan: of the graph with the observed variables gone.
        tables: of the graph's factors, probabilities scaled to a maximum of one.
        inputs: the variables of each table, observed ones included.
        sizes: of all variables.
        observed: the variables that are observed.
        lows: of each table the logarithm of its least positive entry.
        merge: up to how many joint entries steps are merged.

    Attributes:
        whole, static, owner, strides: the tables that observations slice, one after another; where each entry of a
            slice lies in them for states of zero; whose it is; how far each observed variable moves it.
        constants: the joint entries before anything that depends on observations is multiplied into them.
        levels: root level first.
        length: of what is multiplied into joint entries, sliced tables and results.
        least: what scaled results are taken to have at least.
        read, read_starts, places: the joint entries that are summed into marginals; where each state's begin; where
            each readout's states are: from, to, and its shape.

    Raises:
        TooFar: if the tables' entries are too far apart, whatever the observations.
    """

    def __init__(
        self,
        plan: EliminationPlan,
        tables: Sequence[Array],
        inputs: Sequence[Names],
        sizes: Mapping[str, int],
        observed: Sequence[str],
        lows: Sequence[float],
        merge: int,
    ) -> None:
        self.observed = tuple(observed)
        self.dtype = tables[0].dtype if tables else np.dtype(np.float64)
        clusters, roots = merged(plan, sizes, merge)
        self.joint_entries = sum(entries_of(cluster.scope, sizes) for cluster in clusters.values())
        self.components = len(roots)
        first = self._slice_tables(tables, inputs, plan, sizes)
        joint_first = self._lay_out(clusters, roots, first, tables, plan, sizes, lows)
        self._read_out(plan, clusters, joint_first, sizes)

    def _slice_tables(
        self,
        tables: Sequence[Array],
        inputs: Sequence[Names],
        plan: EliminationPlan,
        sizes: Mapping[str, int],
    ) -> dict[int, int]:
        """Lays out the tables that observations slice; where each begins among the sliced entries."""
        first: dict[int, int] = {}
        whole, static, owner = [], [_NONE], [_NONE]
        strides: list[list[int]] = []
        start = length = 0
        for number, (table, names) in enumerate(zip(tables, inputs, strict=True)):
            if set(self.observed).isdisjoint(names):
                continue
            kept = plan.structure.factors[number].inputs
            steps = strides_of(names, sizes)
            static.append(start + positions_of(kept, steps, sizes))
            owner.append(np.full(len(static[-1]), len(strides)))
            strides.append([steps.get(name, 0) for name in self.observed])
            whole.append(np.ascontiguousarray(table).reshape(-1))
            first[number] = length
            start, length = start + table.size, length + len(static[-1])
        self.whole = np.concatenate(whole) if whole else np.zeros(0, dtype=self.dtype)
        self.static = np.concatenate(static).astype(np.intp)
        self.owner = np.concatenate(owner).astype(np.intp)
        self.strides = np.array(strides, dtype=np.intp).reshape(len(strides), len(self.observed))
        return first

    def _lay_out(
        self,
        clusters: Mapping[int, Cluster],
        roots: Sequence[int],
        first: dict[int, int],
        tables: Sequence[Array],
        plan: EliminationPlan,
        sizes: Mapping[str, int],
        lows: Sequence[float],
    ) -> dict[int, int]:
        """Makes the levels; where the joint entries of each cluster begin."""
        variable = {
            node: [each for each in cluster.inputs if each in clusters or each in first]
            for node, cluster in clusters.items()
        }
        depths = [sorted(roots, key=lambda node: -len(variable[node]))]
        while depths[-1]:
            below = [each for node in depths[-1] for each in clusters[node].inputs if each in clusters]
            # Clusters with more inputs come first, so that what a run covers is at the front.
            depths.append(sorted(below, key=lambda node: -len(variable[node])))
        scaling = scaled_levels(depths, clusters, sizes, lows, self.dtype)
        self.least = scaling.least
        length = len(self.static)
        messages = []
        for level in reversed(depths):
            begin = length
            for node in level:
                first[node] = length
                length += entries_of(clusters[node].out, sizes)
            messages.append(slice(begin, length))
        self.length = length
        outs = {node: cluster.out for node, cluster in clusters.items()}
        outs.update({node: plan.structure.factors[node].inputs for node in first if node not in clusters})
        constants: list[Array] = [np.zeros(0, dtype=self.dtype)]
        joint_first: dict[int, int] = {}
        joint = 0
        self.levels: list[Level] = []
        for depth, (level, below, part) in enumerate(
            zip(depths[:-1], depths[1:], reversed(messages), strict=False)
        ):
            begin = joint
            runs: list[list[Array]] = [[] for _ in variable[level[0]]]
            starts, rows = [], []
            back: dict[int, Array] = {}
            for node in level:
                scope, out = clusters[node].scope, clusters[node].out
                entries, count = entries_of(scope, sizes), entries_of(out, sizes)
                joint_first[node] = joint
                starts.append(joint - begin + np.arange(count) * (entries // count))
                rows.append(first[node] - part.start + np.repeat(np.arange(count), entries // count))
                constants.append(
                    constant_of(clusters, clusters[node], first, tables, plan, sizes, self.dtype)
                )
                for run, each in zip(runs, variable[node], strict=False):
                    cells = positions_of(scope, strides_of(outs[each], sizes), sizes)
                    run.append(first[each] + cells)
                    if each in clusters:
                        back[each] = joint - begin + np.argsort(cells, kind="stable")
                joint += entries
            lengths = [
                np.full(entries_of(outs[each], sizes), len(back[each]) // entries_of(outs[each], sizes))
                for each in below
            ]
            self.levels.append(
                Level(
                    slice(begin, joint),
                    part,
                    np.concatenate([_NONE, *(each for run in runs for each in run)]).astype(np.intp),
                    tuple(sum(map(len, run)) for run in runs),
                    np.concatenate(starts).astype(np.intp),
                    np.concatenate(rows).astype(np.intp),
                    np.concatenate([_NONE, *(back[each] for each in below)]).astype(np.intp),
                    starts_of(np.concatenate([_NONE, *lengths])),
                    by_cluster([entries_of(outs[each], sizes) for each in level])
                    if depth in scaling.levels
                    else None,
                )
            )
        self.constants = np.concatenate(constants)
        return joint_first

    def _read_out(
        self,
        plan: EliminationPlan,
        clusters: Mapping[int, Cluster],
        joint_first: Mapping[int, int],
        sizes: Mapping[str, int],
    ) -> None:
        """Which joint entries are summed into the marginals."""
        of_variable: dict[str, list[tuple[int, int]]] = {}
        for node, cluster in clusters.items():
            for name in cluster.scope:
                of_variable.setdefault(name, []).append((entries_of(cluster.scope, sizes), node))
        self.places: dict[Readout, tuple[int, int, tuple[int, ...]]] = {}
        entries, lengths = [_NONE], [_NONE]
        start = 0
        for wanted, _ in plan.readouts:
            names = (wanted,) if isinstance(wanted, str) else wanted
            _, node = min(
                each for each in of_variable[names[0]] if set(names) <= set(clusters[each[1]].scope)
            )
            cells = positions_of(clusters[node].scope, strides_of(names, sizes), sizes)
            count = entries_of(names, sizes)
            entries.append(joint_first[node] + np.argsort(cells, kind="stable"))
            lengths.append(np.full(count, len(cells) // count))
            self.places[wanted] = start, start + count, tuple(sizes[name] for name in names)
            start += count
        self.read = np.concatenate(entries).astype(np.intp)
        self.read_starts = starts_of(np.concatenate(lengths))


def constant_of(
    clusters: Mapping[int, Cluster],
    cluster: Cluster,
    sliced: Mapping[int, int],
    tables: Sequence[Array],
    plan: EliminationPlan,
    sizes: Mapping[str, int],
    dtype: Any,
) -> Array:
    """The product of a cluster's factors that no observation touches."""
    product = np.ones(entries_of(cluster.scope, sizes), dtype=dtype)
    for each in cluster.inputs:
        if each not in clusters and each not in sliced and each < len(plan.structure.factors):
            steps = strides_of(plan.structure.factors[each].inputs, sizes)
            product *= np.ascontiguousarray(tables[each]).reshape(-1)[
                positions_of(cluster.scope, steps, sizes)
            ]
    return product
