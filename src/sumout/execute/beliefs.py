"""Posteriors of real variables: a plan that was run on Gaussian factors, walked in reverse.

Each variable is told given those that were integrated out after it, which gives means and covariances of all, and
samples.

Sources: Lauritzen, *Propagation of probabilities, means and variances in mixed graphical association models* (1992);
for chains Rauch, Tung and Striebel, *Maximum likelihood estimates of linear dynamic systems* (1965), and for samples of
these Frühwirth-Schnatter, *Data augmentation and dynamic linear models* (1994).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from sumout.execute.gaussian import Integrated, Names, joint_of, over_of
from sumout.plan import Group
from sumout.terms.gaussian import Conditional, Covariance, Deviation


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


def beliefs(
    ran: Integrated, noisy: bool = False, shown: Mapping[Names, int] = MappingProxyType({})
) -> dict[str | Names, Belief]:
    """The posterior of each real variable.

    Args:
        ran: the plan, run on its factors.
        noisy: whether to draw one joint sample of all for each of the batch's instead.
        shown: variables whose joint posterior is wanted, too, and for each group of them a factor over them all.
    """
    return _Reverse(ran, noisy, shown).run()


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
            pattern = tuple([each if each in self.batch else None for each in joint_of(group, row)])
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
        joint = joint_of(group, known.rows[0])
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
            for name in over_of(group, row):
                first, stop = stop, stop + self.ran.real[name]
                of_name = value[place, ..., first - start : stop - start]
                covariance = None if spread is None else spread.of(place, slice(first, stop))
                own = self.own(joint_of(group, row))
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
        return group.steps[row].out if group.kind == "product" else joint_of(group, row)

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
