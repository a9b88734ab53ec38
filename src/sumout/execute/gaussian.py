"""A plan run on Gaussian factors: the same groups of steps, but sums are integrals over real variables.

The plan is one of any structure in which a real variable is a dimension like others. What a table is to the other
executors is a ``Quadratic`` or a ``Root`` here: plates and discrete variables are dimensions of its batch, and the real
variables its columns, in the order in which the plan names them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sumout.errors import MemoryLimitError, ModelError
from sumout.plan import EliminationPlan, Group, Rows
from sumout.settings import settings
from sumout.terms.gaussian import Conditional, Quadratic, Root
from sumout.text import memory

Names = tuple[str, ...]
Factor = Quadratic | Root


class Integrated:
    """A plan that was run on factors.

    Attributes:
        square: the constant that is left of the data, of the batch's shape; the integral's logarithm is
            ``rest - square / 2``.
        rest: of the batch's shape.
    """

    def __init__(self, plan: EliminationPlan, factors: Sequence[Factor], real: Mapping[str, int]) -> None:
        self.plan, self.factors, self.real = plan, factors, real
        self.kind = type(factors[0])
        self.results: list[Factor] = []
        self.outs: list[tuple[Names, ...]] = []
        self.conditionals: list[Conditional | None] = []
        for group in plan.schedule.groups:
            found, conditional = self._result(group)
            self.results.append(found)
            self.outs.append(tuple([step.out for step in group.steps]))
            self.conditionals.append(conditional)
        self.square, self.rest = self._total()

    def _result(self, group: Group) -> tuple[Factor, Conditional | None]:
        operands = [self._stacked(side, dims) for side, dims in zip(group.operands, group.dims, strict=True)]
        names = [dims[0] for dims in group.dims]
        if group.kind == "product":
            gone = [1 + self.tensor(names[0]).index(each) for each in group.steps[0].over]
            return operands[0].multiplied(gone, group.times), None
        if group.kind == "sum":
            return self._summed(group, operands[0], names[0][len(group.blocks[0]) :])
        joint = joint_of(group, 0)
        lhs = self._embedded(operands[0], names[0], joint)
        rhs = self._embedded(operands[1], names[1], joint)
        product = lhs.times(rhs)  # type: ignore[arg-type]
        over = over_of(group, 0)
        return self._summed(group, product, over) if over else (product, None)

    def _summed(self, group: Group, joint: Factor, over: Names) -> tuple[Factor, Conditional]:
        try:
            return joint.integrated(sum([self.real[each] for each in over]))
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            listed = ", ".join(sorted({repr(each) for step in group.steps for each in step.over})[:8])
            raise ModelError(
                f"The integral over {listed} diverges or is too close to diverging for its precision: prior and "
                "observations together do not determine them. Give them proper priors, and noise that is not zero."
            ) from error

    def tensor(self, names: Names) -> list[str]:
        """The names that are dimensions of tensors."""
        return [each for each in names if each not in self.real]

    def _stacked(self, parts: tuple[Rows, ...], dims: tuple[Names, ...]) -> Factor:
        """Rows of factors and results along a new first dimension, their dimensions in the order wanted."""
        pieces = []
        start = 0
        for part in parts:
            wanted = dims[start]
            start += len(part.numbers)
            have = self.have(part)
            if part.group is None:
                piece = self.kind.stacked([self.factors[number] for number in part.numbers])
            else:
                piece = self.results[part.group]
                piece = piece if part.whole else piece.chosen(part.index)
            pieces.append(self._ordered(piece, have, wanted))
        return pieces[0] if len(pieces) == 1 else self.kind.joined(pieces)

    def have(self, part: Rows) -> Names:
        """The dimensions of the first of some rows."""
        if part.group is None:
            return self.plan.elimination.dims[part.numbers[0]]
        return self.outs[part.group][part.numbers[0]]

    def _ordered(self, piece: Factor, have: Names, wanted: Names) -> Factor:
        of_tensor, goal = self.tensor(have), self.tensor(wanted)
        if of_tensor != goal:
            piece = piece.turned([0, *[1 + of_tensor.index(each) for each in goal]])
        index = self.columns(have, wanted)
        if index != sorted(index):
            piece = piece.picked(torch.tensor([0, *[1 + each for each in index]], device=piece.rest.device))
        return piece

    def places(self, names: Names) -> dict[str, range]:
        """The entries that belong to each real variable."""
        found: dict[str, range] = {}
        stop = 0
        for each in names:
            if each in self.real:
                start, stop = stop, stop + self.real[each]
                found[each] = range(start, stop)
        return found

    def columns(self, have: Names, wanted: Names) -> list[int]:
        """The places of the entries of real variables in another order, or of some of them."""
        places = self.places(have)
        return [place for each in wanted if each in places for place in places[each]]

    def _embedded(self, piece: Factor, names: Names, joint: Names) -> Factor:
        """A factor as one over more variables, on which it does not depend; dimensions in the order of ``joint``."""
        of_tensor = self.tensor(names)
        shape = piece.rest.shape
        extents = [
            shape[1 + of_tensor.index(each)] if each in of_tensor else 1 for each in self.tensor(joint)
        ]
        have, goal = self.places(names), self.places(joint)
        size = 1 + sum(map(len, goal.values()))
        own = piece.table.shape[-1]
        index = [0] + [own] * (size - 1)  # Any column of zeros.
        for each, places in have.items():
            for mine, theirs in zip(places, goal[each], strict=True):
                index[1 + theirs] = 1 + mine
        piece = piece.padded(size - own) if size > own else piece
        if index[:own] != list(range(own)):
            piece = piece.picked(torch.tensor(index, device=piece.rest.device))
        return piece.reshaped([shape[0], *extents])

    def _total(self) -> tuple[Tensor, Tensor]:
        """The weighted sum of what is left of each part, one element for each of the batch's."""
        schedule, batch = self.plan.schedule, self.plan.structure.batch
        sizes = dict(self.plan.structure.sizes)
        like = self.factors[0].rest
        square, rest = like.new_zeros(()), like.new_zeros(())
        dims = schedule.total_dims or ((),) * len(schedule.totals)
        start = 0
        for number, part in enumerate(schedule.totals):
            names = dims[number] if any(schedule.total_dims) else ()
            piece = self._stacked((part,), (names,) * len(part.numbers))
            weights = schedule.weights[start : start + len(part.numbers)]
            start += len(part.numbers)
            weight = like.new_tensor(weights)
            shape = [sizes[each] if each in names else 1 for each in batch]
            order = [names.index(each) for each in batch if each in names]
            squares = piece.square()
            for row, each in enumerate(weight):
                square = square + (squares[row].permute(order) * each).reshape(shape)
                rest = rest + (piece.rest[row].permute(order) * each).reshape(shape)
        full = [sizes[each] for each in batch]
        return square.expand(full), rest.expand(full)


def integrate(plan: EliminationPlan, factors: Sequence[Factor], real: Mapping[str, int]) -> Integrated:
    """All real variables integrated out.

    Args:
        plan: made of a structure whose batch are the discrete variables, and the plates that these live in. Real
            variables have sizes by which they differ from all other dimensions, and from real ones of other extent.
        factors: for each factor of the plan, all of one form: one dimension for each of its inputs that is not real.
        real: the number of entries of each real variable.

    Raises:
        ModelError: if an integral diverges, naming variables.
        MemoryLimitError: before anything is allocated.
    """
    _check_memory(plan, real, factors[0].table.element_size())
    return Integrated(plan, factors, real)


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


def over_of(group: Group, row: int) -> Names:
    """The variables that a step integrates out."""
    names = group.dims[0][row]
    gone = len(group.blocks[2 if group.kind == "contract" else 1])
    return names[len(names) - gone :] if gone else ()


def joint_of(group: Group, row: int) -> Names:
    """The dimensions of a step's joint factor: those of its result, then what it takes away."""
    names = group.dims[0][row]
    if group.kind != "contract":
        return names
    batch, left, summed, _ = map(len, group.blocks)
    right = group.dims[1][row][batch + summed :]
    return (*names[: batch + left], *right, *names[batch + left :])
