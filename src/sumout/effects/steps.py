"""Steps of chains: how the steps that a vectorized chain takes at once are written, and where a site stands.

A site in step 3 of a loop is called ``x_3``. One that stands for the steps 1, ..., 4 at once is called
``x_slice(1, 5, None)``, because the program names it after the steps and these print as the slice that they are.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sumout.effects.message import Message
from sumout.errors import ModelError

_SLICE = re.compile(r"slice\((\d+), (\d+), None\)")


class Steps(Tensor):
    """The numbers of consecutive steps, as an index tensor that prints as a slice; all else gives plain tensors.

    >>> steps = Steps.of(1, 4)
    >>> f"x_{steps}", steps + 1, torch.arange(5)[steps]
    ('x_slice(1, 4, None)', tensor([2, 3, 4]), tensor([1, 2, 3]))
    """

    start: int
    stop: int
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def of(start: int, stop: int) -> Steps:
        """The steps ``start, ..., stop - 1``."""
        steps: Steps = torch.Tensor._make_subclass(Steps, torch.arange(start, stop))
        steps.start, steps.stop = start, stop
        return steps

    def __str__(self) -> str:
        return str(slice(self.start, self.stop))

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __deepcopy__(self, memo: Any) -> Steps:
        return Steps.of(self.start, self.stop)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Steps.of, (self.start, self.stop)


class ChainStep(NamedTuple):
    """Where a site stands in a chain that has a name: the steps ``start, ..., stop - 1``.

    ``dim`` is the batch dimension that the steps of a vectorized chain run along, ``None`` for a single step.
    ``scored`` is false where the steps are only there to be looked back at: they are scored one step later.
    ``independent`` is true where no step depends on others, so that the chain is a plate. ``along`` is the
    dimension that the program gave a vectorized chain, also for its single steps.
    """

    chain: str
    start: int
    stop: int
    dim: int | None = None
    scored: bool = True
    independent: bool = False
    along: int | None = None

    @property
    def label(self) -> str:
        """The steps as they stand in the names of sites."""
        return str(self.start) if self.dim is None else str(slice(self.start, self.stop))


def unrolled_step(site: Message) -> ChainStep | None:
    """Where a site stands that is one of many in a vectorized chain; ``None`` for a site that is one alone."""
    step = site.infer.get("_chain")
    return None if step is None or step.dim is None or step.independent else step


def is_lookback(site: Message) -> bool:
    """Whether the site is only there to be looked back at, so that it has no part in the density."""
    step = site.infer.get("_chain")
    return step is not None and not step.scored


@lru_cache(maxsize=4096)
def family(name: str, step: ChainStep) -> tuple[str, str]:
    """What stands before and after the step in a site's name.

    Raises:
        ModelError: if the step is not in the name.

    >>> family("x_slice(1, 5, None)", ChainStep("time", 1, 5, dim=-1)), family("x_3_hot", ChainStep("time", 3, 4))
    (('x_', ''), ('x_', '_hot'))
    """
    matches = list(re.finditer(rf"(?<!\d){re.escape(step.label)}(?!\d)", name))
    if not matches:
        raise ModelError(
            f"Site {name!r} of chain {step.chain!r} does not name its step, so steps cannot be told apart. "
            "Name it after the step of the loop, e.g. f'x_{t}'."
        )
    return name[: matches[-1].start()], name[matches[-1].end() :]


def names_of_steps(site: Message) -> tuple[str, ...]:
    """The names of the single steps that a site stands for; its own name for a site that stands for itself.

    >>> names_of_steps(Message(name="x_slice(1, 4, None)", infer={"_chain": ChainStep("time", 1, 4, dim=-1)}))
    ('x_1', 'x_2', 'x_3')
    """
    step: ChainStep | None = site.infer.get("_chain")
    name = site.name or ""
    return (name,) if step is None or step.dim is None else _single_names(name, step)


@lru_cache(maxsize=256)
def _single_names(name: str, step: ChainStep) -> tuple[str, ...]:
    before, after = family(name, step)
    return tuple(f"{before}{t}{after}" for t in range(step.start, step.stop))


def names_in_loop(site: Message) -> tuple[str, ...]:
    """The names of the variables that a site stands for: those of its steps, unless these are a plate."""
    return (site.name or "",) if unrolled_step(site) is None else names_of_steps(site)


def is_named(site: Message, names: Collection[str]) -> bool:
    """Whether names chosen by a user have a site's, or those of all the steps of a chain that it stands for.

    Raises:
        ModelError: if they have those of some of its steps only.

    >>> site = Message(name="x_slice(1, 4, None)", infer={"_chain": ChainStep("time", 1, 4, dim=-1)})
    >>> is_named(site, {"x_1", "x_2", "x_3"}), is_named(site, {"y_1"})
    (True, False)
    """
    if site.name in names:
        return True
    if not names or "_chain" not in site.infer:
        return False
    steps = names_of_steps(site)
    found = [name for name in steps if name in names]
    if found and len(found) < len(steps):
        raise ModelError(
            f"Site {site.name!r} stands for {len(steps)} steps of chain {site.infer['_chain'].chain!r}, of which "
            f"some are named and some are not: {found[0]!r} is. Name all steps or none, or loop step by step: "
            "markov without dim."
        )
    return bool(found)


def without_steps(site: Message) -> Message:
    """A copy of a site of a vectorized chain that stands for any single one of its steps."""
    step = unrolled_step(site)
    if step is None:
        return site
    single = site.copy()
    single.cond_indep_stack = tuple(frame for frame in site.cond_indep_stack if frame.name != step.chain)
    return single


def slices_in(names: Iterable[str], before: str, after: str) -> list[tuple[str, int, int]]:
    """The names of a family that stand for several steps at once, with their first and last-but-one step."""
    found = []
    for name in names:
        if name.startswith(before) and name.endswith(after):
            match = _SLICE.fullmatch(name[len(before) : len(name) - len(after)])
            if match is not None:
                found.append((name, int(match[1]), int(match[2])))
    return found


def values_along(value: Tensor, axis: int, step: ChainStep) -> Tensor:
    """A site's value with its steps along ``axis``, of size one for a single step."""
    if value.dim() < -axis:
        value = value.reshape((1,) * (-axis - value.dim()) + value.shape)
    shape = list(value.shape)
    shape[axis] = step.stop - step.start
    return value.expand(shape)


def joined(values: Sequence[Tensor], axis: int) -> Tensor:
    """Values of consecutive steps, one after another along ``axis``; other dimensions are broadcast."""
    rank = max(value.dim() for value in values)
    values = [value.reshape((1,) * (rank - value.dim()) + value.shape) for value in values]
    shape = [max(sizes) for sizes in zip(*(value.shape for value in values), strict=True)]
    place = rank + axis
    return torch.cat(
        [value.expand(*shape[:place], value.shape[axis], *shape[place + 1 :]) for value in values], axis
    )


def sources(site: Message, given: Collection[str]) -> list[tuple[str, int, int]]:
    """Where values for the steps of a site of a chain are found under other names.

    A model may take many steps at once where a guide loops, or the other way round; a history of another length
    gives other slices. Sites of a trace are passed over that belong to a chain of another name.

    Args:
        site: a site of a chain that has a name.
        given: names of sites; the nodes of a trace, or any other values by name, will do.

    Returns:
        Names, each with the first and last-but-one step that its value is for, in the order of the steps that
        they are to be used from; nothing if there is nothing for any of them.

    Raises:
        ModelError: if there is something for some steps only.
    """
    step: ChainStep = site.infer["_chain"]
    usable = [name for name in given if _may_be_of(step.chain, given, name)]
    found: list[tuple[str, int, int]] = []
    missing = ""
    for before, after in _families(site.name or "", step):
        slices = slices_in(usable, before, after)
        singles = set(usable)
        found, missing, t = [], "", step.start
        while t < step.stop:
            single = f"{before}{t}{after}"
            wider = [each for each in slices if each[1] <= t < each[2]]
            if single in singles:
                found.append((single, t, t + 1))
            elif wider:
                found.append(max(wider, key=lambda each: each[2]))
            else:
                missing = missing or single
            t = max(t + 1, found[-1][2] if found and not missing else t + 1)
        if found:
            break
    if found and missing:
        raise ModelError(
            f"Site {site.name!r} stands for several steps of chain {step.chain!r}, and values are given for some only: "
            f"{', '.join(name for name, _, _ in found)}. Give all or none; {missing} is missing."
        )
    return found


def _may_be_of(chain: str, given: Any, name: str) -> bool:
    found = given[name] if isinstance(given, Mapping) else None
    return not isinstance(found, Message) or found.infer.get("_chain", (chain,))[0] == chain


def _families(name: str, step: ChainStep) -> list[tuple[str, str]]:
    """What may stand before and after the step in a name that has several numbers."""
    if step.dim is not None:
        return [family(name, step)]
    matches = re.finditer(rf"(?<!\d){re.escape(step.label)}(?!\d)", name)
    return [(name[: match.start()], name[match.end() :]) for match in matches][::-1]


def assembled(site: Message, given: Mapping[str, Any]) -> tuple[Tensor, tuple[str, ...]] | None:
    """A value for a site of a chain from values that are given for its steps under other names.

    Args:
        site: a site of a chain that has a name.
        given: values by name of site; sites (of a trace) will do too.

    Returns:
        The value and the names that it was taken from; ``None`` if there is nothing for any of its steps.

    Raises:
        ModelError: if there is something for some of its steps only.
    """
    step: ChainStep = site.infer["_chain"]
    event_dim = site.plain_fn.event_dim
    parts: list[Tensor] = []
    names: list[str] = []
    t, dim = step.start, step.dim
    for name, start, stop in sources(site, given):
        found = given[name]
        of_found = found.infer.get("_chain") if isinstance(found, Message) else None
        value = found.value if isinstance(found, Message) else found
        dim = step.along if step.dim is None else step.dim
        if of_found is not None and of_found.dim is not None:
            dim = of_found.dim
        if dim is None and stop - start > 1:
            raise ModelError(
                f"Site {site.name!r} would take its value from {name!r}, whose dimension of steps is not known. "
                "Give the chain a dim, or give a value for each step by name."
            )
        until = min(stop, step.stop)
        if dim is None:
            parts.append(value)
        else:
            along = values_along(
                torch.as_tensor(value), dim - event_dim, ChainStep(step.chain, start, stop, dim)
            )
            parts.append(along.narrow(dim - event_dim, t - start, until - t))
        names.append(name)
        t = until
    if not names:
        return None
    if step.dim is not None:
        return joined(parts, step.dim - event_dim), tuple(names)
    (value,) = parts
    axis = None if dim is None else dim - event_dim
    return (value.squeeze(axis) if axis is not None and value.dim() == -axis else value), tuple(names)
