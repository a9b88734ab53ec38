"""Gaussian factors: multiplied, integrated, and what is integrated out told given the rest.

A factor over real variables ``x`` (stacked to one vector of ``D`` entries) is

    log f(x) = rest - 1/2 * [1, x] S [1, x]',

``S`` being symmetric, of shape ``(..., 1 + D, 1 + D)``: its first row holds minus the information vector behind a
constant, what is left the precision. The constant that goes with the data, in ``S``, is kept apart from the normalizing
constants, in ``rest``: that makes an unknown common scale of everything one more variable that can be integrated out.
A factor need not be normalizable: a conditional distribution is not.

There are two forms of it. ``Quadratic`` keeps ``S``: products are sums, and integrals Schur complements, which lose the
digits of the ratio of precisions. ``Root`` keeps rows ``A`` of independent residuals, ``S = A'A``: products are rows
side by side, and integrals orthogonal transformations, which lose half as many, and none at all where the rows that
differ in size are those of different sites.

Sources: Koller and Friedman, *Probabilistic Graphical Models* (2009), section 14.2 (canonical forms); Bierman,
*Factorization Methods for Discrete Sequential Estimation* (1977), chapter 5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sumout.terms.triangular import triangular

if TYPE_CHECKING:
    from typing_extensions import Self


class Conditional(NamedTuple):
    """What was integrated out, given the rest: ``root @ x + cross @ [1, rest]`` is standard normal noise.

    Attributes:
        root: upper triangular, shape ``(*batch, gone, gone)``.
        cross: ``(*batch, gone, 1 + kept)``.
    """

    root: Tensor
    cross: Tensor

    def solved(self) -> tuple[Tensor, Tensor]:
        """The root's inverse, and with it the affine map from the rest to the mean, ``(*batch, gone, 1 + kept)``."""
        eye = torch.eye(self.root.shape[-1], dtype=self.root.dtype, device=self.root.device)
        both = torch.cat([eye.expand(self.root.shape), -self.cross], -1)
        found = torch.linalg.solve_triangular(self.root, both, upper=True)
        return found[..., : eye.shape[-1]], found[..., eye.shape[-1] :]


class Covariance(NamedTuple):
    """The covariance of some entries, shape ``(*batch, n, n)``."""

    matrix: Tensor

    def joined(self, inverse: Tensor, slope: Tensor) -> Covariance:
        """With those of more entries behind, ``slope @ x + inverse @ noise``."""
        cross = slope @ self.matrix
        own = inverse @ inverse.mT + cross @ slope.mT
        matrix = self.matrix.expand([*own.shape[:-2], *self.matrix.shape[-2:]])
        return Covariance(torch.cat([torch.cat([matrix, cross.mT], -1), torch.cat([cross, own], -1)], -2))

    def picked(self, index: Tensor) -> Covariance:
        return Covariance(self.matrix.index_select(-1, index).index_select(-2, index))

    def of(self, row: int, entries: slice) -> Tensor:
        """The covariance of some entries, in one row of the batch's first dimension."""
        return self.matrix[row, ..., entries, entries]


class Deviation(NamedTuple):
    """The same as a square root of the covariance, ``matrix @ matrix.mT``."""

    matrix: Tensor

    def joined(self, inverse: Tensor, slope: Tensor) -> Deviation:
        own = slope @ self.matrix
        own = torch.cat([own, inverse.expand([*own.shape[:-1], inverse.shape[-1]])], -1)
        matrix = F.pad(self.matrix, (0, inverse.shape[-1]))
        return Deviation(torch.cat([matrix.expand([*own.shape[:-2], *matrix.shape[-2:]]), own], -2))

    def picked(self, index: Tensor) -> Deviation:
        rows = self.matrix.index_select(-2, index)
        return Deviation(triangular(rows.mT, 0).mT)

    def of(self, row: int, entries: slice) -> Tensor:
        root = self.matrix[row, ..., entries, :]
        return root @ root.mT


class Gaussian(NamedTuple):
    """A factor; the batch of ``table`` is that of ``rest``, and its last two dimensions are told by the form."""

    table: Tensor
    rest: Tensor

    @classmethod
    def stacked(cls, pieces: Sequence[Gaussian]) -> Self:
        """Along a new first dimension."""
        return cls(torch.stack([each.table for each in pieces]), torch.stack([each.rest for each in pieces]))

    @classmethod
    def joined(cls, pieces: Sequence[Gaussian]) -> Self:
        """Along the first dimension."""
        return cls(torch.cat([each.table for each in pieces]), torch.cat([each.rest for each in pieces]))

    def chosen(self, index: Any) -> Self:
        """Some of the batch."""
        return type(self)(self.table[index], self.rest[index])

    def turned(self, order: Sequence[int]) -> Self:
        """The batch's dimensions in another order."""
        return type(self)(self.table.permute(*order, -2, -1), self.rest.permute(*order))

    def reshaped(self, batch: Sequence[int]) -> Self:
        return type(self)(self.table.reshape(*batch, *self.table.shape[-2:]), self.rest.reshape(*batch))

    def expanded(self, batch: Sequence[int]) -> Self:
        return type(self)(self.table.expand(*batch, *self.table.shape[-2:]), self.rest.expand(*batch))

    def detached(self) -> Self:
        return type(self)(self.table.detach(), self.rest.detach())


class Quadratic(Gaussian):
    """A factor as a quadratic form: ``table`` is ``S``, shape ``(*batch, 1 + D, 1 + D)``."""

    __slots__ = ()

    @property
    def form(self) -> Tensor:
        return self.table

    def picked(self, columns: Tensor) -> Quadratic:
        """With some of the constant and the variables' entries, in another order."""
        return Quadratic(self.form.index_select(-1, columns).index_select(-2, columns), self.rest)

    def padded(self, more: int) -> Quadratic:
        """A factor over more entries, on which it does not depend."""
        return Quadratic(F.pad(self.form, (0, more, 0, more)), self.rest)

    def multiplied(self, dims: list[int], times: float) -> Quadratic:
        """The product along dimensions, to a power."""
        form, rest = self.form, self.rest
        if dims:
            form, rest = form.sum(dims), rest.sum(dims)
        return Quadratic(form * times, rest * times) if times != 1.0 else Quadratic(form, rest)

    def times(self, other: Quadratic) -> Quadratic:
        return Quadratic(self.form + other.form, self.rest + other.rest)

    def wider(self, width: Tensor) -> Quadratic:
        """With all deviations multiplied by ``width``, of the batch's shape; off by a constant."""
        return Quadratic(self.form * width[..., None, None] ** -2, self.rest)

    def square(self) -> Tensor:
        """The constant that goes with the data, in which it is a square; of the batch's shape."""
        return self.form[..., 0, 0]

    def log_value(self, point: Tensor) -> Tensor:
        """The factor's logarithm at ``[1, x]``, shape ``(*batch, 1 + D)``."""
        return self.rest - 0.5 * (point * (self.form @ point.unsqueeze(-1)).squeeze(-1)).sum(-1)

    def integrated(self, gone: int) -> tuple[Quadratic, Conditional]:
        """The last ``gone`` entries integrated out.

        Raises:
            torch.linalg.LinAlgError: if the integral diverges.
        """
        kept = self.form.shape[-1] - gone
        root = torch.linalg.cholesky(self.form[..., kept:, kept:])
        cross = torch.linalg.solve_triangular(root, self.form[..., kept:, :kept], upper=False)
        log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        gain = 0.5 * gone * math.log(2 * math.pi) - log_det
        form = self.form[..., :kept, :kept] - cross.mT @ cross
        return Quadratic(form, self.rest + gain), Conditional(root.mT, cross)

    @staticmethod
    def spread(like: Tensor) -> Covariance:
        """Of no entries, of which those of others are made."""
        return Covariance(like)


class Root(Gaussian):
    """A factor by its residuals: ``table`` is ``A``, shape ``(*batch, rows, 1 + D)``.

    ``log f(x) = rest - 1/2 |A [1, x]|^2``. Rows of zeros count for nothing.
    """

    __slots__ = ()

    @classmethod
    def stacked(cls, pieces: Sequence[Gaussian]) -> Root:
        return super().stacked(_alike(pieces))

    @classmethod
    def joined(cls, pieces: Sequence[Gaussian]) -> Root:
        return super().joined(_alike(pieces))

    def picked(self, columns: Tensor) -> Root:
        return Root(self.table.index_select(-1, columns), self.rest)

    def padded(self, more: int) -> Root:
        return Root(F.pad(self.table, (0, more)), self.rest)

    def multiplied(self, dims: list[int], times: float) -> Root:
        table, rest = self.table, self.rest
        if dims:
            kept = [each for each in range(rest.ndim) if each not in dims]
            table = table.permute(*kept, *dims, rest.ndim, rest.ndim + 1)
            table = table.reshape(*table.shape[: len(kept)], -1, table.shape[-1])
            rest = rest.sum(dims)
        return Root(table * math.sqrt(times), rest * times).shortened()

    def times(self, other: Root) -> Root:
        rest = self.rest + other.rest
        tables = [each.table.expand(*rest.shape, *each.table.shape[-2:]) for each in (self, other)]
        return Root(torch.cat(tables, -2), rest)

    def wider(self, width: Tensor) -> Root:
        return Root(self.table / width[..., None, None], self.rest)

    def square(self) -> Tensor:
        return self.table[..., 0].square().sum(-1)

    def log_value(self, point: Tensor) -> Tensor:
        return self.rest - 0.5 * (self.table @ point.unsqueeze(-1)).squeeze(-1).square().sum(-1)

    def integrated(self, gone: int) -> tuple[Root, Conditional]:
        """The last ``gone`` entries integrated out.

        Raises:
            torch.linalg.LinAlgError: if the integral diverges, or the precision of its entries is not enough.
        """
        kept = self.table.shape[-1] - gone
        if self.table.shape[-2] < gone:
            raise torch.linalg.LinAlgError("fewer residuals than variables")  # type: ignore[attr-defined]
        table = torch.cat([self.table[..., kept:], self.table[..., 1:kept], self.table[..., :1]], -1)
        found = triangular(table, gone)
        root, cross = found[..., :gone, :gone], _first(found[..., :gone, gone:])
        gain = 0.5 * gone * math.log(2 * math.pi) - root.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
        return Root(_first(found[..., gone:, gone:]), self.rest + gain), Conditional(root, cross)

    def shortened(self) -> Root:
        """The same factor with fewer rows, where there are many."""
        if self.table.shape[-2] <= 2 * self.table.shape[-1]:
            return self
        table = torch.cat([self.table[..., 1:], self.table[..., :1]], -1)
        return Root(_first(triangular(table, 0)), self.rest)

    @staticmethod
    def spread(like: Tensor) -> Deviation:
        return Deviation(like)


def _first(table: Tensor) -> Tensor:
    """The last column, the constant's, before the others."""
    return torch.cat([table[..., -1:], table[..., :-1]], -1)


def _alike(pieces: Sequence[Gaussian]) -> Sequence[Gaussian]:
    """With as many rows each."""
    most = max(each.table.shape[-2] for each in pieces)
    return [
        each
        if each.table.shape[-2] == most
        else Root(F.pad(each.table, (0, 0, 0, most - each.table.shape[-2])), each.rest)
        for each in pieces
    ]


def integrated(form: Tensor, gone: int) -> tuple[Tensor, Tensor]:
    """The last ``gone`` variables of a quadratic form integrated out.

    Returns:
        The form of the others, and the logarithm of what the integral is multiplied by.

    Raises:
        torch.linalg.LinAlgError: if the integral diverges.
    """
    found, _ = Quadratic(form, form.new_zeros(form.shape[:-2])).integrated(gone)
    return found.form, found.rest
