"""One site in two forms: Pyro's message, which is a dictionary, and sumout's ``Message``.

The two have the same fields with the same meanings. What differs: the types of the plates' frames, and that
sumout keeps a distribution as the program gave it beside the one that is expanded along the plates.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyro.poutine.indep_messenger

from sumout.errors import PlateError
from sumout.poutine.runtime import CondIndepStackFrame, Message
from sumout_contrib.pyro_bridge.expansion import unexpanded

PyroMessage = dict[str, Any]
PyroFrame = pyro.poutine.indep_messenger.CondIndepStackFrame


def site_of(msg: PyroMessage) -> Message:
    """Sumout's form of a message of Pyro's."""
    fn, plates = msg["fn"], msg["cond_indep_stack"]
    plain = unexpanded(msg)
    site = Message(
        type=msg["type"],
        name=msg["name"],
        fn=plain,
        args=msg["args"],
        kwargs=msg["kwargs"],
        value=msg["value"],
        is_observed=msg["is_observed"],
        infer=msg["infer"],
        scale=msg["scale"],
        mask=msg["mask"],
        cond_indep_stack=tuple([CondIndepStackFrame(*frame) for frame in plates]) if plates else (),
        done=msg["done"],
    )
    if plain is not fn:
        site.expand_fn(fn.batch_shape)
    return site


def message_of(site: Message) -> PyroMessage:
    """Pyro's form of a site of sumout's."""
    return {
        "type": site.type,
        "name": site.name,
        "fn": site.fn,
        "args": site.args,
        "kwargs": site.kwargs,
        "value": site.value,
        "is_observed": site.is_observed,
        "infer": site.infer,
        "scale": site.scale,
        "mask": site.mask,
        "cond_indep_stack": pyro_frames(site.cond_indep_stack),
        "done": site.done,
        "stop": False,
        "continuation": None,
    }


def update_message(msg: PyroMessage, site: Message, plain: Any) -> None:
    """Puts into Pyro's message what sumout's handlers have made of it; ``plain`` was its distribution before."""
    plates = msg["cond_indep_stack"]
    added = len(site.cond_indep_stack) - len(plates)
    if added:
        _check_dims(site)
        msg["cond_indep_stack"] = pyro_frames(site.cond_indep_stack[:added]) + plates
    if added or site.plain_fn is not plain:
        msg["fn"] = site.fn
    msg["type"] = site.type
    msg["value"] = site.value
    msg["is_observed"] = site.is_observed
    msg["infer"] = site.infer
    msg["scale"] = site.scale
    msg["mask"] = site.mask
    msg["done"] = site.done
    msg["stop"] = site.stop


def update_site(site: Message, msg: PyroMessage, before: Any) -> None:
    """Puts into a site of sumout's what Pyro's handlers have made of it; ``before`` was its distribution."""
    fn, plates = msg["fn"], msg["cond_indep_stack"]
    added = len(plates) - len(site.cond_indep_stack)
    if added:
        frames = [CondIndepStackFrame(*frame) for frame in plates[:added]]
        site.cond_indep_stack = (*frames, *site.cond_indep_stack)
        _check_dims(site)
    if fn is not before:
        plain = unexpanded(msg)
        if plain is not before:
            site.fn = plain
        if plain is not fn:
            site.expand_fn(fn.batch_shape)
    for field in ("type", "value", "is_observed", "infer", "scale", "mask", "done", "stop"):
        setattr(site, field, msg[field])


def pyro_frames(frames: Iterable[CondIndepStackFrame]) -> tuple[Any, ...]:
    """The plates' frames as Pyro has them."""
    return tuple([PyroFrame(*frame) for frame in frames])


def _check_dims(site: Message) -> None:
    """Plates of the two libraries know of each other where a wrapped program begins, and not later."""
    owners: dict[int, str] = {}
    for frame in site.cond_indep_stack:
        if frame.dim is not None and owners.setdefault(frame.dim, frame.name) != frame.name:
            raise PlateError(
                f"Plates {owners[frame.dim]!r} and {frame.name!r} both use dim {frame.dim} at site {site.name!r}; one "
                "is sumout's, the other Pyro's. Give one of them another dim, or use plates of one library."
            )
