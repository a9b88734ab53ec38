"""Where Python would decide on a value: allowed only if all values of the sites agree."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from sumout.effects.hidden.axes import Axes
from sumout.effects.hidden.value import Hidden
from sumout.errors import ControlFlowError


def decided(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The number, bool or list that a value is, if it is the same one along all axes.

    Raises:
        ControlFlowError: if it is not.
    """
    value = args[0]
    first = value.one()
    if not bool(((value.raw == first) | ((value.raw != value.raw) & (first != first))).all()):
        raise depends(value.axes, func)
    return func(first.detach(), *args[1:], **kwargs)


def all_true(args: tuple[Any, ...]) -> Tensor:
    """Whether all elements of all values are true: what distributions ask of their parameters."""
    all_values: Tensor = args[0].raw
    return all_values.all()


def same(one: Any, other: Any) -> bool:
    """``torch.equal``."""
    if tuple(one.shape) != tuple(other.shape):
        return False
    return bool((one == other).all())


def formatted(value: Hidden, spec: str) -> str:
    """A number is written as it is; other values, and all in messages of the libraries, tell what they are."""
    if value.visible_rank or _asked_by_library():
        return shown(value)
    number = decided(Tensor.__format__, (value, spec), {})
    return str(number)


def _asked_by_library() -> bool:
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_BETWEEN):
        frame = frame.f_back
    return bool(frame.f_globals.get("__name__", "").startswith(("torch.", "pyro.")))


_BETWEEN = ("sumout.effects.hidden", "torch.overrides", "torch._tensor")


def shown(value: Hidden) -> str:
    """What a value prints as."""
    sites = ", ".join(f"{axis.site} ({axis.size} values)" for axis in value.axes)
    return f"<{value.raw.dtype} of shape {tuple(value.visible_shape)} for each value of {sites}>"


def depends(axes: Axes, func: Callable[..., Any]) -> ControlFlowError:
    """The error for a decision on values that differ, and for a function that does not know all values at once."""
    sites = [axis.site for axis in axes]
    named = " and ".join(map(repr, sites))
    several = len(sites) > 1
    name = getattr(func, "__name__", str(func))
    what = _WORDS.get(name, f"as {name}() does")
    automatic = [axis.site for axis in axes if axis.automatic]
    return ControlFlowError(
        f"Python decides on the value of enumerated site{'s' * several} {named} ({what}), which "
        f"{'have all their' if several else 'has all its'} values at once. Mark {'them' if several else 'it'} "
        "infer={'enumerate': 'auto'} (or all sites: config_enumerate(model, default='auto')), to run the program once "
        "for each value. Or write torch.where(z == 1, a, b) in the place of if, or observe the "
        f"site{'s' * several} (the condition handler).",
        sites,
        automatic if len(automatic) == len(sites) else (),
    )


_WORDS = {
    "__bool__": "if, while, and, or, not, bool()",
    "__int__": "int()",
    "__float__": "float()",
    "__index__": "an index of a list, or range()",
    "__format__": "an f-string, as for a site's name",
}
