"""Sequential enumeration: a program is run once for each joint value of the sites that steer it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from sumout.effects import Message
from sumout.effects.handlers.sequential import MOST_RUNS, SequentialMessenger
from sumout.effects.messenger import level_outside
from sumout.effects.random_state import TorchState
from sumout.errors import ControlFlowError, EnumerationError

T = TypeVar("T")

_MANY_RUNS = 2**13
"""Runs after which the user is told how many there may be."""
_REMEDY = (
    "What Python decides in one iteration of a plate may bear on all that comes later, so that iterations cannot be "
    "taken apart. Enumerate sites in parallel (infer={'enumerate': 'parallel'}), with torch.where in the place of "
    "decisions."
)
_MOST_TOLD = 4


@dataclass(frozen=True)
class SequentialRun(Generic[T]):
    """One run: what it gave, and the sites that had one of their values in it, by name, in order.

    The sites are those of the run itself: ``site.value`` is the value, ``site["log_prob"]`` its log-probability,
    scaled and masked. Each is in the recorded traces too, as a latent site with a value and
    ``is_sequential(site)``, so that a lowered graph has its log-probability as a factor.
    """

    result: T
    sites: dict[str, Message]

    def __iter__(self) -> Iterator[Any]:
        """The two, to be unpacked."""
        return iter((self.result, self.sites))


def sequential_runs(run: Callable[[], T], names: Collection[str] = ()) -> list[SequentialRun[T]]:
    """All runs of a program that are needed for its sequentially enumerated sites: one if there are none.

    Sites marked ``infer={"enumerate": "sequential"}`` have one of their values in each run. Those marked ``"auto"``
    are enumerated in parallel, unless Python decides on their values (``if z:``): then all begins anew, with these
    among the sequential ones. The sum over all runs of the products of all log-probabilities is the whole. All runs
    have the same random numbers of torch: the elements of a subsample, and what else is drawn.

    Args:
        run: runs the program, or a guide and a model, under handlers that enumerate and record.
        names: sites that are sequential whatever their mark is.

    Raises:
        ControlFlowError: if Python decides on the value of a site that is marked ``"parallel"``.
        EnumerationError: if there are too many runs, or runs are no function of the values of their sites. Sites in the
            iterations of a plate have a run for each of their *joint* values, K**N: what Python decides in one
            iteration may bear, by whatever the program keeps, on all that comes later, which nothing shows.

    >>> import torch
    >>> import sumout.distributions as dist
    >>> from sumout import sample
    >>> def model():
    ...     z = sample("z", dist.Bernoulli(0.5), infer={"enumerate": "sequential"})
    ...     return sample("w", dist.Bernoulli(0.5), infer={"enumerate": "sequential"}) + 2 if z else z
    >>> [(int(run.result), list(run.sites)) for run in sequential_runs(model)]
    [(0, ['z']), (2, ['z', 'w']), (3, ['z', 'w'])]
    """
    known = frozenset(names)
    before = TorchState.now()
    while True:
        each = SequentialMessenger(known)
        found: list[SequentialRun[T]] = []
        more = True
        try:
            while more:
                if len(found) == MOST_RUNS:
                    raise EnumerationError(
                        f"More than {MOST_RUNS} runs are needed, one for each joint value of the sites that are "
                        f"enumerated sequentially: {_told(each.sites)}. {_REMEDY}"
                    )
                if len(found) == _MANY_RUNS:
                    warnings.warn(
                        f"After {_MANY_RUNS} runs for the sites that are enumerated sequentially, of about "
                        f"{_MANY_RUNS / each.share:.2g} in all, if all values lead to as many: {_told(each.sites)}. "
                        f"{_REMEDY}",
                        stacklevel=level_outside(),
                    )
                if found:
                    before.restore()
                with each:
                    result = run()
                found.append(SequentialRun(result, each.sites))
                more = each.advance()
        except ControlFlowError as error:
            if not error.automatic or error.automatic <= known:
                raise
            known |= error.automatic
            before.restore()
            continue
        if len(found) > 1:
            # Some run has used more random numbers than the last; what comes after is to have none of them.
            torch.manual_seed(int(torch.randint(2**62, ())))
        return found


def _told(sites: Mapping[str, Message]) -> str:
    """Names of the sites of a run, by plate."""
    by_plates: dict[str, list[str]] = {}
    for name, site in sites.items():
        around = [f"{frame.name!r} of size {frame.size}" for frame in site.cond_indep_stack]
        by_plates.setdefault(" and ".join(around), []).append(name)
    told = []
    for plates, names in by_plates.items():
        more = f", ... ({len(names)} sites)" if len(names) > _MOST_TOLD else ""
        where = f" in plate {plates}" if plates else ""
        told.append(f"{', '.join(map(repr, names[:_MOST_TOLD]))}{more}{where}")
    return "; ".join(told)
