"""Types and devices of what a run has met, for the message of an error that they cause."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Tensor

from sumout.effects.message import Message
from sumout.effects.trace.container import Trace
from sumout.effects.trace.shapes import append_to_message

_SIGNS = ("dtype", "scalar type", "same device", "on cpu", "on cuda")


class Recorder(Protocol):
    """What has the record of a run, such as a ``TraceMessenger``."""

    @property
    def trace(self) -> Trace: ...


@contextmanager
def types_told(recorder: Recorder, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[None]:
    """Inside, an error of torch's about types or devices ends with those of what was recorded and of the arguments."""
    try:
        yield
    except RuntimeError as error:
        if not getattr(error, "_tells_shapes", False):
            given = Message(type="args", name="_INPUT", args=args, kwargs=dict(kwargs))
            told = told_types(error, {"_INPUT": given, **recorder.trace.nodes})
            if told:
                append_to_message(error, told)
                error._tells_shapes = True  # type: ignore[attr-defined]
        raise


def told_types(error: Exception, nodes: Mapping[str, Message]) -> str:
    """A line about types and devices, for an error of torch's about them; nothing for others.

    >>> import torch
    >>> x = Message(type="args", name="_INPUT", args=(torch.zeros(2).double(),))
    >>> w = Message(type="param", name="w", value=torch.zeros(2))
    >>> print(told_types(RuntimeError("mat1 and mat2 must have the same dtype"), {"_INPUT": x, "w": w}))
    Types: w is torch.float32 on cpu; the arguments: torch.float64 on cpu. They have to agree: convert the data or the
    parameters (and modules) with .to(...).
    """
    if not isinstance(error, RuntimeError) or not any(sign in str(error) for sign in _SIGNS):
        return ""
    met: dict[str, list[str]] = {}
    for name, site in nodes.items():
        if site.type in ("param", "sample") and isinstance(site.value, Tensor) and _has_digits(site.value):
            met.setdefault(_type(site.value), []).append(name)
    told = [f"{_listed(names)} {kind}" for kind, names in met.items()]
    given = nodes.get("_INPUT")
    values = () if given is None else _tensors((given.args, given.kwargs))
    arguments = dict.fromkeys([_type(value) for value in values if _has_digits(value)])
    if arguments:
        told.append(f"the arguments: {', '.join(arguments)}")
    if not told:
        return ""
    return (
        f"Types: {'; '.join(told)}. They have to agree: convert the data or the\n"
        "parameters (and modules) with .to(...)."
    )


def _has_digits(value: Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()


def _type(value: Tensor) -> str:
    return f"{value.dtype} on {value.device}"


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return f"{shown} {'is' if len(names) == 1 else 'are'}"


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
