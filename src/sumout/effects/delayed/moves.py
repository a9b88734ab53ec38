"""Functions that move entries about, join tensors, or change their type and device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from sumout.effects.delayed.links import Link, broadcast, joined, joint_shape, moved
from sumout.effects.delayed.registry import delayed_in, is_affine, is_known, mapped, probes, rule
from sumout.effects.delayed.value import Delayed

MOVES = frozenset(
    """
    expand expand_as reshape reshape_as view view_as unsqueeze squeeze transpose swapaxes swapdims permute
    movedim moveaxis t T mT adjoint H mH flatten unflatten ravel __getitem__ index_select gather take
    take_along_dim select narrow unbind split split_with_sizes chunk tensor_split hsplit vsplit dsplit
    flip fliplr flipud roll rot90 repeat repeat_interleave tile broadcast_to clone contiguous diagonal diag
    diag_embed diagflat tril triu masked_select atleast_1d atleast_2d atleast_3d __iter__ unfold
    """.split()  # noqa: SIM905  (a list of sixty strings reads worse)
)
_FILLS = frozenset(["diag", "diag_embed", "diagflat", "tril", "triu"])
_VIEWS = frozenset(["view"])
_EXPANDS = frozenset(["expand", "expand_as", "broadcast_to"])
JOINS = frozenset(
    ["stack", "cat", "concat", "concatenate", "hstack", "vstack", "dstack", "row_stack", "column_stack"]
)
CASTS = frozenset(["to", "double", "float", "half", "bfloat16", "type", "type_as", "cpu", "cuda"])


def move(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    value = args[0]
    if not isinstance(value, Delayed):
        if name.startswith("atleast") and len(args) == 1 and isinstance(value, (tuple, list)):
            return type(value)([func(each) for each in value])
        return None
    if delayed_in((args[1:], kwargs)) or not is_known(value):
        return None
    if name in _VIEWS and any(isinstance(each, torch.dtype) for each in (*args, *kwargs.values())):
        return None

    def change(each: Tensor) -> Any:
        result = func(each, *args[1:], **kwargs)
        return list(result) if isinstance(result, Iterator) else result

    plain = change(value.probe)
    fills = name in _FILLS
    shift = None if value.shift is None else change(value.shift)
    if isinstance(plain, Tensor) and name in _EXPANDS:
        if plain.shape == value.shape:
            return value
        return Delayed.made(
            plain, tuple([broadcast(link, plain.shape) for link in value.links]), shift, value.power
        )
    if isinstance(plain, Tensor):
        links = tuple([moved(link, change, fills) for link in value.links])
        return Delayed.made(plain, links, shift, value.power)
    parts = []
    for place, part in enumerate(plain):
        links = tuple([moved(link, lambda each, place=place: change(each)[place]) for link in value.links])  # type: ignore[misc]
        parts.append(Delayed.made(part, links, None if shift is None else shift[place], value.power))
    return iter(parts) if name == "__iter__" else parts if type(plain) is list else tuple(parts)


def join(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Several values in one; what does not come from a value is no part of its sites."""
    values = delayed_in((args, kwargs))
    if not is_affine(*values):
        return None

    def assembled(value: Delayed, part: Tensor, rest: int) -> Tensor:
        def change(each: Tensor) -> Tensor:
            return (
                part if each is value else torch.full(each.shape, rest, dtype=part.dtype, device=part.device)
            )

        return cast(Tensor, func(*mapped(args, change), **mapped(kwargs, change)))

    links: list[Link] = []
    for value in values:
        for link in value.links:
            where = torch.stack([assembled(value, each, -1) for each in link.where])
            coef = torch.stack([assembled(value, each, 0) for each in link.coef])
            links.append(link._replace(where=where, coef=coef))
    consts = None
    if any(not isinstance(each, Delayed) or each.shift is not None for each in _tensors((args, kwargs))):
        consts = func(*mapped(args, _const), **mapped(kwargs, _const))
    return Delayed.made(func(*probes(args), **probes(kwargs)), joined(links), consts)


def _tensors(structure: Any) -> list[Tensor]:
    found: list[Tensor] = []
    mapped(structure, found.append)
    return found


def _const(each: Tensor) -> Tensor:
    return each.const if isinstance(each, Delayed) else each


def cast_value(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    value = args[0]
    if not is_known(value):
        return None
    args, kwargs = probes(args[1:]), probes(kwargs)

    def cast_one(each: Tensor) -> Any:
        return func(each, *args, **kwargs)

    plain = cast_one(value.probe)
    if not isinstance(plain, Tensor):
        return plain  # The name of the type.
    if not plain.is_floating_point():
        return None
    links = [
        link._replace(where=link.where.to(plain.device), coef=cast_one(link.coef)) for link in value.links
    ]
    return Delayed.made(
        plain, tuple(links), None if value.shift is None else cast_one(value.shift), value.power
    )


@rule("where")
def _where(*args: Any, input: Any = None, other: Any = None, condition: Any = None, self: Any = None) -> Any:
    """Of ``torch.where``; ``x.where`` has its arguments in another order."""
    given = list(args)
    if condition is not None:
        given.insert(0, condition)
    given += [each for each in (input, self, other) if each is not None]
    if len(given) != 3:
        return None
    chosen, left, right = given
    if not (isinstance(chosen, Tensor) and chosen.dtype == torch.bool):
        chosen, left = left, chosen
    if isinstance(chosen, Delayed):
        return None
    plain = torch.where(chosen, *probes((left, right)))
    alike = _alike(left, right)
    if alike is not None:
        picked = [
            one._replace(
                where=torch.where(chosen, one.where, two.where), coef=torch.where(chosen, one.coef, two.coef)
            )
            for one, two in [[broadcast(each, plain.shape) for each in pair] for pair in alike]
        ]
        return Delayed.made(plain, tuple(picked), None, left.power)
    if not is_affine(left, right):
        return None
    links = []
    for value, mine in ((left, chosen), (right, ~chosen)):
        if isinstance(value, Delayed):
            for link in value.links:
                link = broadcast(link, plain.shape)
                links.append(
                    link._replace(
                        where=torch.where(mine, link.where, -1), coef=torch.where(mine, link.coef, 0.0)
                    )
                )
    pure = all(isinstance(each, Delayed) and each.shift is None for each in (left, right))
    consts: list[Any] = [each.const if isinstance(each, Delayed) else each for each in (left, right)]
    shift: Any = None if pure else torch.where(chosen, consts[0], consts[1])
    return Delayed.made(plain, joined(links), shift)


def _alike(left: Any, right: Any) -> list[tuple[Link, Link]] | None:
    """The links of two values in pairs, if they are the same multiples of other entries of the same sites."""
    if not (isinstance(left, Delayed) and isinstance(right, Delayed) and is_known(left, right)):
        return None
    if left.shift is not None or right.shift is not None or left.power != right.power:
        return None
    others = {link.site: link for link in right.links}
    pairs = [(link, others[link.site]) for link in left.links if link.site in others]
    same = len(pairs) == len(left.links) == len(others) and all(one.terms == two.terms for one, two in pairs)
    return pairs if same else None


@rule("broadcast_tensors")
def _broadcast_tensors(*tensors: Any) -> Any:
    if len(tensors) == 1 and not isinstance(tensors[0], Tensor):
        tensors = tuple(tensors[0])
    if not is_known(*tensors):
        return None
    shape = joint_shape(*[each.shape for each in tensors])
    return tuple([each.expand(shape) for each in tensors])


@rule("pad")
def _pad(*args: Any, mode: str = "constant", **kwargs: Any) -> Any:
    value = args[0]
    pad: Any = kwargs.get("pad", args[1] if len(args) > 1 else None)
    mode = args[2] if len(args) > 2 else mode
    filled = kwargs.get("value", args[3] if len(args) > 3 else None)
    if (
        mode != "constant"
        or not isinstance(value, Delayed)
        or not value.is_affine
        or isinstance(filled, Delayed)
    ):
        return None
    change = torch.nn.functional.pad
    links = tuple([moved(link, lambda each: change(each, pad), fills=True) for link in value.links])
    shift: Tensor | None = None
    if value.shift is not None or filled:
        shift = change(value.const, pad, value=filled)
    return Delayed.made(change(value.probe, pad, value=filled), links, shift)
