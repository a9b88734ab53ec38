"""Small plans on the CPU as a handful of array operations: clusters of steps, level by level, on flat arrays.

On a small network, calling an operation takes longer than the operation. Here, steps are merged into clusters, and all
clusters that are equally far from the root are worked on at once, whatever their shapes: what they need is gathered by
an index made beforehand, multiplied, and summed in segments. Observed states enter as offsets of an index. The calls
are numpy's, which cost a quarter of torch's.

Numbers are plain probabilities. That is safe as long as no product of positive entries underflows: a bound on the least
positive entry of every result is known beforehand. Where it would come near underflow, results are scaled to a maximum
of one and looked at; if they are not what the bound assumes from there on, there is no answer, and a sweep in
logarithms has to give it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sumout.plan import EliminationPlan
from sumout.plan.structure import Readout

Array = npt.NDArray[Any]
Names = tuple[str, ...]

_NONE = np.zeros(0, dtype=np.intp)


class TooFar(Exception):
    """Entries are too far apart for plain probabilities."""


class Cluster(NamedTuple):
    """Steps that are done as one: ``inputs`` (factors or other clusters) are multiplied over all dimensions of
    ``scope``, of which ``out`` comes first, and all but ``out`` is summed out."""

    inputs: tuple[int, ...]
    scope: Names
    out: Names


class _Level(NamedTuple):
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


class FlatProgram:
    """A plan without plates, powers and batch, laid out for one pattern of observations.

    Args:
        plan: of the graph with the observed variables gone; its readouts are what ``marginals`` gives.
        tables: of the graph's factors, probabilities scaled to a maximum of one.
        inputs: the variables of each table, observed ones included.
        sizes: of all variables.
        observed: the variables that are observed.
        lows: of each table the logarithm of its least positive entry.
        merge: up to how many joint entries steps are merged.

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
        merge: int = 256,
    ) -> None:
        self.observed = tuple(observed)
        self.dtype = tables[0].dtype if tables else np.dtype(np.float64)
        self.tiny = np.finfo(self.dtype).tiny
        clusters, roots = merged(plan, sizes, merge)
        self.joint_entries = sum(_count(cluster.scope, sizes) for cluster in clusters.values())
        self.components = len(roots)
        first = self._slice_tables(tables, inputs, plan, sizes)
        joint_first = self._lay_out(clusters, roots, first, tables, plan, sizes, lows)
        self._read_out(plan, clusters, joint_first, sizes)

    # ------------------------------------------------------------------------------------------ layout

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
            steps = _steps(names, sizes)
            static.append(start + _positions(kept, steps, sizes))
            owner.append(np.full(len(static[-1]), len(strides)))
            strides.append([steps.get(name, 0) for name in self.observed])
            whole.append(np.ascontiguousarray(table).reshape(-1))
            first[number] = length
            start, length = start + table.size, length + len(static[-1])
        self._whole = np.concatenate(whole) if whole else np.zeros(0, dtype=self.dtype)
        self._static = np.concatenate(static).astype(np.intp)
        self._owner = np.concatenate(owner).astype(np.intp)
        self._strides = np.array(strides, dtype=np.intp).reshape(len(strides), len(self.observed))
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
        scaled = self._scaled_levels(depths, clusters, plan, sizes, lows)
        length = len(self._static)
        messages = []
        for level in reversed(depths):
            begin = length
            for node in level:
                first[node] = length
                length += _count(clusters[node].out, sizes)
            messages.append(slice(begin, length))
        self._length = length
        outs = {node: cluster.out for node, cluster in clusters.items()}
        outs.update({node: plan.structure.factors[node].inputs for node in first if node not in clusters})
        constants: list[Array] = [np.zeros(0, dtype=self.dtype)]
        joint_first: dict[int, int] = {}
        joint = 0
        self._levels: list[_Level] = []
        for depth, (level, below, part) in enumerate(
            zip(depths[:-1], depths[1:], reversed(messages), strict=False)
        ):
            begin = joint
            runs: list[list[Array]] = [[] for _ in variable[level[0]]]
            starts, rows = [], []
            back: dict[int, Array] = {}
            for node in level:
                scope, out = clusters[node].scope, clusters[node].out
                entries, count = _count(scope, sizes), _count(out, sizes)
                joint_first[node] = joint
                starts.append(joint - begin + np.arange(count) * (entries // count))
                rows.append(first[node] - part.start + np.repeat(np.arange(count), entries // count))
                constants.append(_constant(clusters, clusters[node], first, tables, plan, sizes, self.dtype))
                for run, each in zip(runs, variable[node], strict=False):
                    cells = _positions(scope, _steps(outs[each], sizes), sizes)
                    run.append(first[each] + cells)
                    if each in clusters:
                        back[each] = joint - begin + np.argsort(cells, kind="stable")
                joint += entries
            lengths = [
                np.full(_count(outs[each], sizes), len(back[each]) // _count(outs[each], sizes))
                for each in below
            ]
            self._levels.append(
                _Level(
                    slice(begin, joint),
                    part,
                    np.concatenate([_NONE, *(each for run in runs for each in run)]).astype(np.intp),
                    tuple(sum(map(len, run)) for run in runs),
                    np.concatenate(starts).astype(np.intp),
                    np.concatenate(rows).astype(np.intp),
                    np.concatenate([_NONE, *(back[each] for each in below)]).astype(np.intp),
                    _starts(np.concatenate([_NONE, *lengths])),
                    _by_cluster([_count(outs[each], sizes) for each in level]) if depth in scaled else None,
                )
            )
        self._constants = np.concatenate(constants)
        return joint_first

    def _scaled_levels(
        self,
        depths: list[list[int]],
        clusters: Mapping[int, Cluster],
        plan: EliminationPlan,
        sizes: Mapping[str, int],
        lows: Sequence[float],
    ) -> set[int]:
        """The levels whose results have to be scaled, so that nothing underflows or overflows further up."""
        limits = np.finfo(self.dtype)
        lowest, highest = math.log(limits.tiny) - 2 * math.log(limits.eps), math.log(limits.max) - 1
        # What scaled results are taken to have at least: so much that any cluster can multiply all of its own.
        least = lowest / 6
        for cluster in clusters.values():
            below = sum(each in clusters for each in cluster.inputs)
            own = sum(lows[each] for each in cluster.inputs if each < len(lows))
            if below:
                least = max(least, (lowest - own) / below)
        if least >= 0:
            raise TooFar
        self._least = math.exp(least)
        known: dict[int, tuple[float, float]] = {}

        def bounds(node: int) -> tuple[float, float]:
            cluster = clusters[node]
            low, high = 0.0, math.log(_count(cluster.scope, sizes) / _count(cluster.out, sizes))
            for each in cluster.inputs:
                if each in clusters:
                    low, high = low + known[each][0], high + known[each][1]
                elif each < len(lows):
                    low += lows[each]
            return low, high

        scaled = set()
        for depth in range(len(depths) - 1, -1, -1):
            known.update({node: bounds(node) for node in depths[depth]})
            if any(known[node][0] < lowest or known[node][1] > highest for node in depths[depth]):
                # All that a level reads is on the next one, or in tables.
                scaled.add(depth + 1)
                known.update(dict.fromkeys(depths[depth + 1], (least, 0.0)))
                known.update({node: bounds(node) for node in depths[depth]})
                if any(known[node][0] < lowest or known[node][1] > highest for node in depths[depth]):
                    raise TooFar
        return scaled

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
                of_variable.setdefault(name, []).append((_count(cluster.scope, sizes), node))
        self.places: dict[Readout, tuple[int, int, tuple[int, ...]]] = {}
        entries, lengths = [_NONE], [_NONE]
        start = 0
        for wanted, _ in plan.readouts:
            names = (wanted,) if isinstance(wanted, str) else wanted
            _, node = min(
                each for each in of_variable[names[0]] if set(names) <= set(clusters[each[1]].scope)
            )
            cells = _positions(clusters[node].scope, _steps(names, sizes), sizes)
            count = _count(names, sizes)
            entries.append(joint_first[node] + np.argsort(cells, kind="stable"))
            lengths.append(np.full(count, len(cells) // count))
            self.places[wanted] = start, start + count, tuple(sizes[name] for name in names)
            start += count
        self._read = np.concatenate(entries).astype(np.intp)
        self._read_starts = _starts(np.concatenate(lengths))

    # --------------------------------------------------------------------------------------------- run

    def _forward(self, states: Sequence[int]) -> tuple[float, Array, Array, list[Array]]:
        """Of the sum over all assignments: its logarithm; the joint entries behind it; what was multiplied into these
        (sliced tables, then results, the roots' last); by what results were divided, root level last."""
        results = np.empty(self._length, dtype=self.dtype)
        if len(self._static):
            offsets = self._strides @ np.asarray(states, dtype=np.intp)
            entries = self._static + offsets.take(self._owner)
            self._whole.take(entries, out=results[: len(self._static)], mode="clip")
        joint = self._constants.copy()
        value = 0.0
        divided: list[Array] = []
        for level in reversed(self._levels):
            here = joint[level.joint]
            gathered = results.take(level.gather)
            start = 0
            for reach in level.reach:
                here[:reach] *= gathered[start : start + reach]
                start += reach
            found = np.add.reduceat(here, level.starts, out=results[level.messages])
            if level.scaled is not None:
                starts, clusters = level.scaled
                most = np.maximum.reduceat(found, starts)
                if not most.all():
                    return -math.inf, joint, results, divided
                by = most.take(clusters)
                found /= by
                if not np.where(found > 0, found, 1.0).min() >= self._least:
                    raise TooFar
                value += float(np.log(most).sum())
                divided.append(by)
        roots = results[self._length - self.components :]
        value = value + float(np.log(roots).sum()) if roots.all() else -math.inf
        return value, joint, results, divided

    def log_evidence(self, states: Sequence[int]) -> float:
        """The logarithm of the sum over all assignments, for states of the observed variables in order.

        Raises:
            TooFar: if entries are too far apart with these states.
        """
        return self._forward(states)[0]

    def marginals(self, states: Sequence[int]) -> tuple[float, Array]:
        """``log_evidence``, and all marginals in one array, each where ``places`` tells: from, to, and its shape.

        There are none where the former is ``-inf``.

        Raises:
            TooFar: if entries are too far apart with these states.
        """
        value, joint, results, divided = self._forward(states)
        if value == -math.inf:
            return value, joint[:0]
        # What is divided by a result of zero is zero itself.
        inverse = 1.0 / np.maximum(results, self.tiny)
        beliefs = np.ones(self.components, dtype=self.dtype)
        for level in self._levels:
            here = joint[level.joint]
            beliefs *= inverse[level.messages]
            if level.scaled is not None:
                beliefs /= divided.pop()
            here *= beliefs.take(level.rows)
            if len(level.back):
                beliefs = np.add.reduceat(here.take(level.back), level.back_starts)
        return value, np.add.reduceat(joint.take(self._read), self._read_starts)


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
                most = max(merge, _count(scope, sizes), _count(clusters[each].scope, sizes))
                if _count(wider, sizes) <= most:
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


def _constant(
    clusters: Mapping[int, Cluster],
    cluster: Cluster,
    sliced: Mapping[int, int],
    tables: Sequence[Array],
    plan: EliminationPlan,
    sizes: Mapping[str, int],
    dtype: Any,
) -> Array:
    """The product of a cluster's factors that no observation touches."""
    product = np.ones(_count(cluster.scope, sizes), dtype=dtype)
    for each in cluster.inputs:
        if each not in clusters and each not in sliced and each < len(plan.structure.factors):
            steps = _steps(plan.structure.factors[each].inputs, sizes)
            product *= np.ascontiguousarray(tables[each]).reshape(-1)[_positions(cluster.scope, steps, sizes)]
    return product


def _count(names: Sequence[str] | Mapping[str, None], sizes: Mapping[str, int]) -> int:
    return math.prod(sizes[name] for name in names)


def _steps(names: Names, sizes: Mapping[str, int]) -> dict[str, int]:
    """How far apart the entries of a flat table are along each dimension."""
    steps: dict[str, int] = {}
    step = 1
    for name in reversed(names):
        steps[name] = step
        step *= sizes[name]
    return steps


def _positions(scope: Names, steps: Mapping[str, int], sizes: Mapping[str, int]) -> Array:
    """Where the entries of a flat table are that belong to each joint state of ``scope``, in order."""
    position = np.zeros(1, dtype=np.intp)
    for name in scope:
        position = (position[:, None] + steps.get(name, 0) * np.arange(sizes[name])).reshape(-1)
    return position


def _starts(lengths: Array) -> Array:
    """Where segments of these lengths begin."""
    return (np.cumsum(lengths) - lengths).astype(np.intp)


def _by_cluster(counts: Sequence[int]) -> tuple[Array, Array]:
    """The first message of each cluster, and the cluster of each message."""
    return _starts(np.array(counts)), np.repeat(np.arange(len(counts)), counts)
