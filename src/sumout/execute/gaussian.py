"""A plan run on Gaussian factors: the same groups of steps, but sums are integrals over real variables.

The plan is one of any structure in which a real variable is a dimension like others. What a table is to the other
executors is a ``Quadratic`` or a ``Root`` here: plates and discrete variables are dimensions of its batch, and the real
variables its columns, in the order in which the plan names them. Walked in reverse, each variable given those that were
integrated out after it, the plan gives posterior means and covariances, and samples.

Sources: Lauritzen, *Propagation of probabilities, means and variances in mixed graphical association models* (1992);
for chains in a loop, which the walks pass one step at a time, Rauch, Tung and Striebel (1965), and for their samples
Frühwirth-Schnatter, *Data augmentation and dynamic linear models* (1994).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from sumout.errors import MemoryLimitError, ModelError
from sumout.plan import EliminationPlan, Group, Rows
from sumout.settings import settings
from sumout.terms.gaussian import Conditional, Covariance, Deviation, Quadratic, Root
from sumout.text import memory

Names = tuple[str, ...]
Factor = Quadratic | Root


class Belief(NamedTuple):
    """What is known of a real variable in the end.

    Attributes:
        names: the first dimensions: the plan's batch, then plates.
        value: the posterior mean, or a sample; shape ``(*names, entries)``.
        covariance: ``(*names, entries, entries)``; ``None`` of a sample.
    """

    names: Names
    value: Tensor
    covariance: Tensor | None


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
        joint = _joint(group, 0)
        lhs = self._embedded(operands[0], names[0], joint)
        rhs = self._embedded(operands[1], names[1], joint)
        product = lhs.times(rhs)  # type: ignore[arg-type]
        over = _over(group, 0)
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

    def beliefs(
        self, noisy: bool = False, shown: Mapping[Names, int] = MappingProxyType({})
    ) -> dict[str | Names, Belief]:
        """The posterior of each real variable.

        Args:
            noisy: whether to draw one joint sample of all for each of the batch's instead.
            shown: variables whose joint posterior is wanted, too, and for each group of them a factor over them all.
        """
        return _Reverse(self, noisy, shown).run()


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


def _over(group: Group, row: int) -> Names:
    """The variables that a step integrates out."""
    names = group.dims[0][row]
    gone = len(group.blocks[2 if group.kind == "contract" else 1])
    return names[len(names) - gone :] if gone else ()


def _joint(group: Group, row: int) -> Names:
    """The dimensions of a step's joint factor: those of its result, then what it takes away."""
    names = group.dims[0][row]
    if group.kind != "contract":
        return names
    batch, left, summed, _ = map(len, group.blocks)
    right = group.dims[1][row][batch + summed :]
    return (*names[: batch + left], *right, *names[batch + left :])


class _Known(NamedTuple):
    """The entries of some rows' real variables: rows, then batch and plates, which may be of size one."""

    rows: list[int]
    value: Tensor
    spread: Covariance | Deviation | None
    """``None`` for a sample."""

    def chosen(self, rows: list[int], index: Tensor) -> _Known:
        """Some of the rows."""
        spread = self.spread
        if spread is not None:
            spread = spread._replace(matrix=spread.matrix.index_select(0, index))
        return _Known(rows, self.value.index_select(0, index), spread)


def _gathered(pieces: Sequence[_Known]) -> _Known:
    """The rows of some pieces, in their order."""
    if len(pieces) > 1:
        spreads = [each.spread for each in pieces if each.spread is not None]
        spread = spreads[0]._replace(matrix=_joined([each.matrix for each in spreads])) if spreads else None
        rows = [row for each in pieces for row in each.rows]
        pieces = [_Known(rows, _joined([each.value for each in pieces]), spread)]
    (found,) = pieces
    order = sorted(range(len(found.rows)), key=found.rows.__getitem__)
    if order == list(range(len(order))):
        return found
    return found.chosen(sorted(found.rows), torch.tensor(order, device=found.value.device))


def _joined(tables: Sequence[Tensor]) -> Tensor:
    """Along the first dimension; the others may have size one in some."""
    full = [max(sizes) for sizes in zip(*[each.shape[1:] for each in tables], strict=True)]
    return torch.cat([each.expand(len(each), *full) for each in tables])


class _Reverse:
    """A plan walked in reverse.

    Tensors have the dimensions rows, each of the batch's, and plates in the order of the step's names; the batch's and
    plates are of size one where nothing varies along them.
    """

    def __init__(self, ran: Integrated, noisy: bool, shown: Mapping[Names, int]) -> None:
        self.ran, self.noisy = ran, noisy
        self.shown: dict[int, list[Names]] = {}
        for wanted, factor in shown.items():
            self.shown.setdefault(factor, []).append(wanted)
        structure = ran.plan.structure
        self.sizes, self.batch = dict(structure.sizes), structure.batch
        self.plates = dict(structure.variables)
        self.known: list[list[_Known]] = [[] for _ in ran.plan.schedule.groups]
        self.found: dict[str | Names, Belief] = {}

    def run(self) -> dict[str | Names, Belief]:
        like = self.ran.factors[0].rest
        groups = self.ran.plan.schedule.groups
        for part in self.ran.plan.schedule.totals:
            if part.group is not None:
                lead = [len(part.numbers), *[1] * len(self.batch)]
                spread = None if self.noisy else self.ran.kind.spread(like.new_zeros([*lead, 0, 0]))
                self.known[part.group].append(_Known(list(part.numbers), like.new_zeros([*lead, 0]), spread))
        for number in reversed(range(len(groups))):
            self._group(number, groups[number])
        return self.found

    def own(self, names: Names) -> list[str]:
        """The plates among a step's dimensions."""
        return [each for each in names if each not in self.ran.real and each not in self.batch]

    def _group(self, number: int, group: Group) -> None:
        alike: dict[tuple[str | None, ...], list[int]] = {}
        for row in range(group.rows):
            pattern = tuple([each if each in self.batch else None for each in _joint(group, row)])
            alike.setdefault(pattern, []).append(row)
        known, conditional = self.known[number], self.ran.conditionals[number]
        self.known[number] = []
        for (
            rows
        ) in alike.values():  # Of the same sizes, but a batch's dimension may be a plate in another row.
            mine = _gathered([each for each in known if each.rows[0] in rows])
            own = conditional
            if own is not None:
                if len(rows) < group.rows:
                    index = torch.tensor(rows, device=mine.value.device)
                    own = Conditional(*[each.index_select(0, index) for each in own])
                mine = self._with_gone(group, mine, own)
            self._hand_down(group, mine)

    def _with_gone(self, group: Group, known: _Known, conditional: Conditional) -> _Known:
        """With the entries that the step integrated out behind the others."""
        joint = _joint(group, known.rows[0])
        dims, own = self.ran.tensor(joint), self.own(joint)
        inverse, affine = [
            each.permute(
                0, *[1 + dims.index(name) for name in (*self.batch, *own) if name in dims], -2, -1
            ).reshape(
                len(known.rows),
                *[self.sizes[name] if name in dims else 1 for name in self.batch],
                *[self.sizes[name] for name in own],
                *each.shape[-2:],
            )
            for each in conditional.solved()
        ]
        shift, slope = affine[..., 0], affine[..., 1:]
        value = shift + (slope @ known.value.unsqueeze(-1)).squeeze(-1)
        spread = None
        if known.spread is None:
            full = [len(known.rows), *[self.sizes[name] for name in (*self.batch, *own)]]
            noise = torch.randn([*full, shift.shape[-1]], dtype=value.dtype, device=value.device)
            value = value + (inverse @ noise.unsqueeze(-1)).squeeze(-1)
        else:
            spread = known.spread.joined(inverse, slope)
        start = known.value.shape[-1]
        for place, row in enumerate(known.rows):
            stop = start
            for name in _over(group, row):
                first, stop = stop, stop + self.ran.real[name]
                of_name = value[place, ..., first - start : stop - start]
                covariance = None if spread is None else spread.of(place, slice(first, stop))
                own = self.own(_joint(group, row))
                self.found[name] = self._belief(self.plates[name], own, of_name, covariance)
        before = known.value.expand([*value.shape[:-1], start])
        return _Known(known.rows, torch.cat([before, value], -1), spread)

    def _belief(
        self, plates: Collection[str], own: Sequence[str], value: Tensor, covariance: Tensor | None
    ) -> Belief:
        """What is known of variables that live in some plates; along others they do not vary."""
        lead = len(self.batch)
        for place in reversed(range(len(own))):
            if own[place] not in plates:
                value = value.select(lead + place, 0)
                covariance = None if covariance is None else covariance.select(lead + place, 0)
        kept = [each for each in own if each in plates]
        full = [self.sizes[each] for each in (*self.batch, *kept)]
        value = value.expand([*full, value.shape[-1]])
        if covariance is not None:
            covariance = covariance.expand([*full, *covariance.shape[-2:]])
        return Belief((*self.batch, *kept), value, covariance)

    def _hand_down(self, group: Group, known: _Known) -> None:
        """What a step knows now, to the steps from which it had its factors."""
        wanted = {row: place for place, row in enumerate(known.rows)}
        for parts in group.operands:
            start = 0
            for part in parts:
                rows = range(start, start + len(part.numbers))
                start = rows.stop
                chosen = [row for row in rows if row in wanted]
                if part.group is None:
                    for row in chosen:
                        number = part.numbers[row - rows.start]
                        if number in self.shown:
                            self._show(number, group, row, self._part(known, [wanted[row]], [row]))
                elif chosen:
                    numbers = [part.numbers[row - rows.start] for row in chosen]
                    mine = self._part(known, [wanted[row] for row in chosen], numbers)
                    have = self.ran.outs[part.group][numbers[0]]
                    self.known[part.group].append(self._seen(mine, self._scope(group, chosen[0]), have))

    def _part(self, known: _Known, places: list[int], rows: list[int]) -> _Known:
        """Some of the rows, by new numbers."""
        if places == list(range(len(known.rows))):
            return known._replace(rows=rows)
        return known.chosen(rows, torch.tensor(places, device=known.value.device))

    def _scope(self, group: Group, row: int) -> Names:
        """The dimensions of what a step knows."""
        return group.steps[row].out if group.kind == "product" else _joint(group, row)

    def _seen(self, known: _Known, have: Names, wanted: Names) -> _Known:
        """What is known of some of the variables, in another order."""
        rows, value, spread = known
        columns = self.ran.columns(have, wanted)
        if columns != list(range(value.shape[-1])):
            index = torch.tensor(columns, dtype=torch.long, device=value.device)
            value = value.index_select(-1, index)
            spread = None if spread is None else spread.picked(index)
        if spread is not None:
            spread = spread._replace(matrix=self._turned(spread.matrix, have, wanted, 2))
        return _Known(rows, self._turned(value, have, wanted, 1), spread)

    def _show(self, factor: int, group: Group, row: int, known: _Known) -> None:
        """The joint posterior of some of a factor's variables."""
        scope = self._scope(group, row)
        own = self.own(self.ran.plan.elimination.dims[factor])
        for wanted in self.shown[factor]:
            _, value, spread = self._seen(known, scope, (*own, *wanted))
            plates = {plate for name in wanted for plate in self.plates[name]}
            covariance = None if spread is None else spread.of(0, slice(None))
            self.found[wanted] = self._belief(plates, own, value[0], covariance)

    def _turned(self, table: Tensor, have: Names, wanted: Names, tail: int) -> Tensor:
        """From the plates of one step to those of another; plates that are new have size one."""
        lead = 1 + len(self.batch)
        own, goal = self.own(have), self.own(wanted)
        for place in reversed(range(len(own))):
            if own[place] not in goal:
                table = table.select(lead + place, 0)
        own = [each for each in own if each in goal]
        table = table.permute(
            *range(lead), *[lead + own.index(each) for each in goal if each in own], *range(-tail, 0)
        )
        for place, each in enumerate(goal):
            if each not in own:
                table = table.unsqueeze(lead + place)
        return table
