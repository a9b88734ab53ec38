"""A plan run on Gaussian factors: the same groups of steps, but sums are integrals over real variables.

The plan is one of any structure in which a real variable is a dimension like others. What a table is to the other
executors is a quadratic form and a constant here: plates and discrete variables are dimensions of both, and the real
variables are rows and columns of the form, in the order in which the plan names them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sumout.errors import MemoryLimitError, ModelError
from sumout.plan import EliminationPlan, Group, Rows
from sumout.settings import settings
from sumout.terms.gaussian import Quadratic, integrated
from sumout.text import memory

Names = tuple[str, ...]


def integrate(plan: EliminationPlan, factors: Sequence[Quadratic], real: Mapping[str, int]) -> Quadratic:
    """All real variables integrated out.

    Args:
        plan: made of a structure whose batch are the discrete variables, and the plates that these live in. Real
            variables have sizes by which they differ from all other dimensions, and from real ones of other extent.
        factors: for each factor of the plan, probes included: one dimension for each of its inputs that is not real.
        real: the number of entries of each real variable.

    Returns:
        What is left: ``form`` of shape ``(*batch, 1, 1)``, and ``rest`` of shape ``batch``.

    Raises:
        ModelError: if an integral diverges, naming variables.
        MemoryLimitError: before anything is allocated.
    """
    _check_memory(plan, real, factors[0].form.element_size() if factors else 8)
    run = _Run(plan, factors, real)
    for group in plan.schedule.groups:
        run.results.append(run.result(group))
        run.outs.append(tuple([step.out for step in group.steps]))
    return run.total()


def _check_memory(plan: EliminationPlan, real: Mapping[str, int], itemsize: int) -> None:
    """Refuses integrals over joint forms that are too large."""
    sizes = dict(plan.structure.sizes)
    largest = 0
    names: Names = ()
    for group in plan.schedule.groups:
        joint = tuple(dict.fromkeys([name for dims in group.dims for name in dims[0]]))
        entries = math.prod([sizes[each] for each in joint if each not in real])
        entries *= group.rows * (1 + sum([real[each] for each in joint if each in real])) ** 2
        if entries > largest:
            largest, names = entries, joint
    needed = 3 * largest * itemsize  # The operands, their sum, and what is left of it.
    if needed > settings.memory_limit:
        listed = ", ".join(map(repr, names[:12])) + (", ..." if len(names) > 12 else "")
        raise MemoryLimitError(
            f"Integrating continuous sites out needs {memory(needed)} and the limit is "
            f"{memory(settings.memory_limit)}: a form over {listed} has {largest:,} entries. Discrete sites among "
            "these are taken in all their joint values, as real variables are integrated out first: observe some, or "
            "leave the continuous site to a guide, infer={'collapse': False}; or, for a switching system, "
            "collapse(approximate='moment_matching')."
        )


class _Run:
    """The results so far, with the names of the dimensions of each of their rows."""

    def __init__(self, plan: EliminationPlan, factors: Sequence[Quadratic], real: Mapping[str, int]) -> None:
        self.plan, self.factors, self.real = plan, factors, real
        self.results: list[Quadratic] = []
        self.outs: list[tuple[Names, ...]] = []

    def result(self, group: Group) -> Quadratic:
        operands = [self.stacked(side, dims) for side, dims in zip(group.operands, group.dims, strict=True)]
        names = [dims[0] for dims in group.dims]
        if group.kind == "product":
            form, rest = operands[0]
            gone = [1 + self.tensor(names[0]).index(each) for each in group.steps[0].over]
            if gone:
                form, rest = form.sum(gone), rest.sum(gone)
            return (
                Quadratic(form * group.times, rest * group.times)
                if group.times != 1.0
                else Quadratic(form, rest)
            )
        if group.kind == "sum":
            return self.integrated(group, operands[0], names[0][len(group.blocks[0]) :])
        batch, left, summed, _ = map(len, group.blocks)
        shared, of_left, over = names[0][:batch], names[0][batch : batch + left], names[0][batch + left :]
        of_right = names[1][batch + summed :]
        joint = (*shared, *of_left, *of_right, *over)
        lhs = self.embedded(operands[0], names[0], joint)
        rhs = self.embedded(operands[1], names[1], joint)
        product = Quadratic(lhs.form + rhs.form, lhs.rest + rhs.rest)
        return self.integrated(group, product, over) if over else product

    def integrated(self, group: Group, joint: Quadratic, over: Names) -> Quadratic:
        try:
            form, gain = integrated(joint.form, sum([self.real[each] for each in over]))
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            listed = ", ".join(sorted({repr(each) for step in group.steps for each in step.over})[:8])
            raise ModelError(
                f"The integral over {listed} diverges or is too close to diverging for its precision: prior and "
                "observations together do not determine them. Give them proper priors, and noise that is not zero."
            ) from error
        return Quadratic(form, joint.rest + gain)

    def tensor(self, names: Names) -> list[str]:
        """The names that are dimensions of tensors."""
        return [each for each in names if each not in self.real]

    def stacked(self, parts: tuple[Rows, ...], dims: tuple[Names, ...]) -> Quadratic:
        """Rows of factors and results along a new first dimension, their dimensions in the order wanted."""
        pieces = []
        start = 0
        for part in parts:
            wanted = dims[start]
            start += len(part.numbers)
            if part.group is None:
                have = self.plan.elimination.dims[part.numbers[0]]
                chosen = [self.factors[number] for number in part.numbers]
                piece = Quadratic(
                    torch.stack([each.form for each in chosen]), torch.stack([each.rest for each in chosen])
                )
            else:
                have = self.outs[part.group][part.numbers[0]]
                form, rest = self.results[part.group]
                piece = Quadratic(form, rest) if part.whole else Quadratic(form[part.index], rest[part.index])
            pieces.append(self.ordered(piece, have, wanted))
        if len(pieces) == 1:
            return pieces[0]
        return Quadratic(torch.cat([each.form for each in pieces]), torch.cat([each.rest for each in pieces]))

    def ordered(self, piece: Quadratic, have: Names, wanted: Names) -> Quadratic:
        form, rest = piece
        of_tensor, goal = self.tensor(have), self.tensor(wanted)
        if of_tensor != goal:
            order = [0, *[1 + of_tensor.index(each) for each in goal]]
            form, rest = form.permute(*order, -2, -1), rest.permute(order)
        places = self.places(have)
        if [each for each in have if each in places] != [each for each in wanted if each in places]:
            index = torch.tensor(
                [0, *[place for each in wanted if each in places for place in places[each]]],
                device=form.device,
            )
            form = form.index_select(-1, index).index_select(-2, index)
        return Quadratic(form, rest)

    def places(self, names: Names) -> dict[str, range]:
        """The rows of the form that belong to each real variable."""
        found: dict[str, range] = {}
        stop = 1
        for each in names:
            if each in self.real:
                start, stop = stop, stop + self.real[each]
                found[each] = range(start, stop)
        return found

    def embedded(self, piece: Quadratic, names: Names, joint: Names) -> Quadratic:
        """A factor as one over more variables, on which it does not depend; dimensions in the order of ``joint``."""
        form, rest = piece
        of_tensor = self.tensor(names)
        extents = [
            rest.shape[1 + of_tensor.index(each)] if each in of_tensor else 1 for each in self.tensor(joint)
        ]
        shape = [rest.shape[0], *extents]
        have, goal = self.places(names), self.places(joint)
        size = 1 + sum(map(len, goal.values()))
        index = [size - 1] * size  # Any row of zeros.
        index[0] = 0
        for each, places in have.items():
            for mine, theirs in zip(places, goal[each], strict=True):
                index[theirs] = mine
        missing = size - form.shape[-1]
        if missing:
            form = F.pad(form, (0, missing, 0, missing))
        own = form.shape[-1] - missing
        index = [each if each < own else own for each in index] if missing else index
        if index[:own] != list(range(own)):
            chosen = torch.tensor(index, device=form.device)
            form = form.index_select(-1, chosen).index_select(-2, chosen)
        return Quadratic(form.reshape([*shape, size, size]), rest.reshape(shape))

    def total(self) -> Quadratic:
        """The weighted sum of what is left of each part, one element for each of the batch's."""
        schedule, batch = self.plan.schedule, self.plan.structure.batch
        sizes = dict(self.plan.structure.sizes)
        form: Tensor | float = 0.0
        rest: Tensor | float = 0.0
        dims = schedule.total_dims or ((),) * len(schedule.totals)
        start = 0
        for number, part in enumerate(schedule.totals):
            names = dims[number] if any(schedule.total_dims) else ()
            piece = self.stacked((part,), (names,) * len(part.numbers))
            weights = schedule.weights[start : start + len(part.numbers)]
            start += len(part.numbers)
            weight = piece.rest.new_tensor(weights)
            shape = [sizes[each] if each in names else 1 for each in batch]
            order = [names.index(each) for each in batch if each in names]
            for row, each in enumerate(weight):
                form = form + (piece.form[row, ..., 0, 0].permute(order) * each).reshape(shape)
                rest = rest + (piece.rest[row].permute(order) * each).reshape(shape)
        full = [sizes[each] for each in batch]
        assert isinstance(form, Tensor)
        assert isinstance(rest, Tensor)
        return Quadratic(form.expand(full)[..., None, None], rest.expand(full))
