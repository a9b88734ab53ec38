"""Results of graphs whose plates were written out, or that ran in slices: put together so that nobody need know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sumout.execute import Choice, Marginal, Result, Samples
from sumout.factors import FactorGraph
from sumout.plan import Readout, Unrolled


@dataclass(frozen=True, eq=False)
class JoinedResult(Result):
    """A ``Result`` in the names and plates of the graph that was asked about.

    ``read`` gives the marginals of copies, ``choose`` their best states.
    """

    read: Callable[[Readout], Marginal] = lambda wanted: _nothing(wanted)
    choose: Callable[[], Mapping[str, Choice]] = dict
    copies: Unrolled | None = None

    def marginal(self, wanted: Readout) -> Marginal:
        """The marginal of a variable, or the joint one of several, that the plan was made to read out."""
        if self.copies is None or not self.copies.home(wanted):
            return self.read(wanted)
        sizes = {name: plate.size for name, plate in self.graph.plates.items()}
        parts = [
            self.read(self.copies.readout(wanted, element)) for element in self.copies.elements(wanted, sizes)
        ]
        home, inner = self.copies.home(wanted), parts[0].plates
        table, plates = _stacked(
            [each.probs for each in parts], [sizes[plate] for plate in home], home, inner, 0
        )
        return Marginal(table, plates)

    @cached_property
    def assignment(self) -> dict[str, Choice]:
        """For ``MAX_SUM``, the best state of every variable, one index for each element of its plates."""
        return joined_choices(self.graph, self.copies, self.choose())


def _nothing(wanted: Readout) -> Marginal:
    raise KeyError(wanted)


def _stacked(
    parts: Sequence[Tensor],
    sizes: Sequence[int],
    home: Sequence[str],
    inner: Sequence[str],
    before: int,
) -> tuple[Tensor, tuple[str, ...]]:
    """Stacks tables over unrolled plates and sorts these among the plates that the tables have already.

    The plates of the tables begin at dimension ``before``.
    """
    table = torch.stack(list(parts), before)
    table = table.reshape([*table.shape[:before], *sizes, *table.shape[before + 1 :]])
    have = (*home, *inner)
    plates = tuple(sorted(have))
    order = [before + have.index(each) for each in plates]
    rest = range(before + len(have), table.ndim)
    return table.permute([*range(before), *order, *rest]), plates


def joined_choices(
    graph: FactorGraph, copies: Unrolled | None, chosen: Mapping[str, Choice], leading: int = 0
) -> dict[str, Choice]:
    """The states of copies as tables over the plates that were written out; ``leading`` dimensions come first."""
    if copies is None:
        return dict(chosen)
    sizes = {name: plate.size for name, plate in graph.plates.items()}
    found: dict[str, Choice] = {}
    for name, variable in graph.variables.items():
        if name not in copies.copies:
            found[name] = chosen[name]
            continue
        home, names = copies.copies[name]
        inner = tuple(sorted(variable.plates.difference(home)))
        extent = [sizes[plate] for plate in inner]
        parts = [_expanded(chosen[each], inner, extent, leading) for each in names.values()]
        table, plates = _stacked(parts, [sizes[plate] for plate in home], home, inner, leading)
        found[name] = Choice(table, plates)
    return found


def _expanded(choice: Choice, plates: Sequence[str], extent: Sequence[int], leading: int) -> Tensor:
    """States over all of some plates, in their order, after the leading dimensions."""
    states = choice.states
    order = [leading + choice.plates.index(each) for each in plates if each in choice.plates]
    states = states.permute([*range(leading), *order])
    shape = [size if each in choice.plates else 1 for each, size in zip(plates, extent, strict=True)]
    states = states.reshape([*states.shape[:leading], *shape])
    return states.expand([*states.shape[:leading], *extent])


def joined_samples(graph: FactorGraph, copies: Unrolled | None, drawn: Samples) -> Samples:
    """Samples in the names and plates of the graph that was asked about."""
    if not drawn.choices:
        return drawn
    return drawn._replace(choices=joined_choices(graph, copies, drawn.choices, leading=1))


def joined_beliefs(
    graph: FactorGraph, copies: Unrolled, beliefs: Sequence[Tensor], maximum: bool
) -> tuple[Tensor, ...]:
    """The beliefs of factors from those of their copies.

    A factor that is constant along a plate that was written out stands for all its copies: their beliefs are added up.
    """
    found: list[Tensor | None] = [None] * len(graph.factors)
    for (source, at), belief in zip(copies.factors, beliefs, strict=False):  # Probes are ones.
        factor = graph.factors[source]
        if not at:
            found[source] = belief
            continue
        index = dict(at)
        dims = [each for each in factor.inputs if each in index]
        for place, plate in sorted((factor.inputs.index(each), each) for each in dims):
            chosen = torch.arange(graph.plates[plate].size, device=belief.device) == index[plate]
            shape = [-1 if dim == place else 1 for dim in range(belief.ndim + 1)]
            belief = torch.where(
                chosen.reshape(shape), belief.unsqueeze(place), -torch.inf if maximum else 0.0
            )
        before = found[source]
        if before is not None:
            belief = torch.maximum(before, belief) if maximum else before + belief
        found[source] = belief
    return tuple([each for each in found if each is not None])
