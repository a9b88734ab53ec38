"""Rows of tables and results put together as a group takes them, and what comes back handed to each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sumout.plan import Group, Rows

Indices = dict[tuple[torch.device, tuple[int, ...]], Tensor | None]
"""Index tensors that were made before, by the identity of the rows that they are of, which live as long as the plan."""


def stack_rows(
    parts: tuple[Rows, ...], tables: Sequence[Tensor], results: Sequence[Tensor | None], indices: Indices
) -> Tensor:
    """One tensor ``(rows, ...)`` of factors and earlier results; a view where the rows allow one."""
    pieces = []
    for part in parts:
        if part.group is None:
            piece = _stacked([tables[number] for number in part.numbers])
        else:
            source = results[part.group]
            assert source is not None  # A schedule never reads a group before it has run.
            piece = source if part.whole else _selected(source, part, indices)
        pieces.append(piece if part.order is None else piece.permute(part.order))
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _selected(source: Tensor, part: Rows, indices: Indices) -> Tensor:
    """Some rows of a result: a view where they are evenly spaced."""
    if isinstance(part.index, slice):
        return source[part.index]
    key = source.device, (id(part),)
    index = indices.get(key)
    if index is None:
        index = indices[key] = torch.tensor(part.index, device=source.device)
    return source.index_select(0, index)


def _stacked(tables: list[Tensor]) -> Tensor:
    """Tables along a new first dimension; a view where they lie evenly spaced in one storage already.

    That is how the tables of sites come that were scored together.
    """
    first = tables[0]
    if len(tables) == 1:
        return first.unsqueeze(0)
    if first.numel() < 1024 or torch.is_grad_enabled():
        return torch.stack(tables)  # A view would hide the other tables from autograd.
    start, strides, storage = first.storage_offset(), first.stride(), first.untyped_storage().data_ptr()
    step = tables[1].storage_offset() - start
    if step < 0:
        return torch.stack(tables)  # A stride is never negative.
    for row, table in enumerate(tables):
        if (
            table.storage_offset() != start + row * step
            or table.stride() != strides
            or table.untyped_storage().data_ptr() != storage
        ):
            return torch.stack(tables)
    return first.as_strided((len(tables), *first.shape), (step, *strides), start)


class Back:
    """What has been handed back so far: to results whose groups are still to come, and to factors.

    Args:
        passed: for each group whether something has to come back to it.
        wanted: the factors to which something is to come back.
        alike: as for ``sweep.backward``.

    """

    def __init__(
        self, passed: Sequence[bool], wanted: frozenset[int], alike: Sequence[int] | None = None
    ) -> None:
        self.passed = passed
        self.wanted = wanted
        self.alike = alike
        self.of_results: list[list[tuple[Rows, Tensor]]] = [[] for _ in passed]
        self.of_factors: dict[int, Tensor] = {}

    def take(self, number: int) -> list[tuple[Rows, Tensor]]:
        """What came back for a group's result, which is not kept any longer."""
        found, self.of_results[number] = self.of_results[number], []
        return found

    def hand(self, parts: tuple[Rows, ...], grad: Tensor) -> None:
        """Gives each source its rows of a stacked operand's adjoint."""
        start = 0
        for part in parts:
            rows = slice(start, start + len(part.numbers))
            start = rows.stop
            if part.group is not None and not self.passed[part.group]:
                continue
            piece = grad[rows] if len(parts) > 1 else grad
            if part.back is not None:
                piece = piece.permute(part.back)
            if part.group is None:
                self._to_factors(part.numbers, piece)
            else:
                self.of_results[part.group].append((part, piece))

    def _to_factors(self, numbers: tuple[int, ...], piece: Tensor) -> None:
        here = [row for row, number in enumerate(numbers) if number in self.wanted]
        if self.alike is not None:
            self._to_tables([self.alike[numbers[row]] for row in here], here, piece)
        elif len(here) == len(numbers):
            self.of_factors.update(zip(numbers, piece.unbind(0), strict=True))
        elif here:
            # A view of a few rows would keep all of them in memory.
            few = torch.stack([piece[row] for row in here])
            self.of_factors.update(zip([numbers[row] for row in here], few.unbind(0), strict=True))

    def _to_tables(self, tables: list[int], here: list[int], piece: Tensor) -> None:
        if len(set(tables)) < len(tables):
            rows: dict[int, list[int]] = {}
            for table, row in zip(tables, here, strict=True):
                rows.setdefault(table, []).append(row)
            whole = len(rows) == 1 and len(here) == len(piece)
            found = [(piece if whole else piece[each]).sum(0) for each in rows.values()]
        else:
            found = list(piece.unbind(0))
            found = found if len(found) == len(here) else [found[row] for row in here]
        for table, each in zip(dict.fromkeys(tables), found, strict=True):
            before = self.of_factors.get(table)
            self.of_factors[table] = each if before is None else before + each


def gather(pieces: list[tuple[Rows, Tensor]], group: Group, indices: Indices) -> Tensor:
    """What came back for a group's result from the pieces that its readers handed back."""
    if len(pieces) == 1 and pieces[0][0].whole:
        return pieces[0][1]
    stacked = torch.cat([piece for _, piece in pieces])
    # Readers that are run as one hand back at another time, and other rows, than one by one.
    key = stacked.device, (id(group), *[id(rows) for rows, _ in pieces])
    if key not in indices:
        order = [row for rows, _ in pieces for row in rows.numbers]
        inverse = sorted(range(len(order)), key=order.__getitem__)
        in_order = order == inverse == list(range(len(order)))
        indices[key] = None if in_order else torch.tensor(inverse, device=stacked.device)
    index = indices[key]
    return stacked if index is None else stacked.index_select(0, index)
