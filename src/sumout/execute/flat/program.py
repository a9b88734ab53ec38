"""A flat program: the layout of a plan, and the few array operations that answer one set of observations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from sumout.execute.flat.layout import Layout
from sumout.execute.flat.positions import Array, Names
from sumout.execute.flat.scaling import TooFar
from sumout.plan import EliminationPlan


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
        self.layout = layout = Layout(plan, tables, inputs, sizes, observed, lows, merge)
        self.observed, self.places, self.dtype = layout.observed, layout.places, layout.dtype
        self.tiny = np.finfo(self.dtype).tiny

    def _forward(self, states: Sequence[int]) -> tuple[float, Array, Array, list[Array]]:
        """Of the sum over all assignments: its logarithm; the joint entries behind it; what was multiplied into these
        (sliced tables, then results, the roots' last); by what results were divided, root level last."""
        layout = self.layout
        results = np.empty(layout.length, dtype=self.dtype)
        if len(layout.static):
            offsets = layout.strides @ np.asarray(states, dtype=np.intp)
            entries = layout.static + offsets.take(layout.owner)
            layout.whole.take(entries, out=results[: len(layout.static)], mode="clip")
        joint = layout.constants.copy()
        value = 0.0
        divided: list[Array] = []
        for level in reversed(layout.levels):
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
                if not np.where(found > 0, found, 1.0).min() >= layout.least:
                    raise TooFar
                value += float(np.log(most).sum())
                divided.append(by)
        roots = results[layout.length - layout.components :]
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
        layout = self.layout
        value, joint, results, divided = self._forward(states)
        if value == -math.inf:
            return value, joint[:0]
        # What is divided by a result of zero is zero itself.
        inverse = 1.0 / np.maximum(results, self.tiny)
        beliefs = np.ones(layout.components, dtype=self.dtype)
        for level in layout.levels:
            here = joint[level.joint]
            beliefs *= inverse[level.messages]
            if level.scaled is not None:
                beliefs /= divided.pop()
            here *= beliefs.take(level.rows)
            if len(level.back):
                beliefs = np.add.reduceat(here.take(level.back), level.back_starts)
        return value, np.add.reduceat(joint.take(layout.read), layout.read_starts)
