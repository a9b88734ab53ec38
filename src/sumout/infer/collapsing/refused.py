"""What is no way to meet a delayed site: values given to it, values past a barrier, dependents that are drawn."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from sumout.effects import Message
from sumout.effects.delayed import Delayed
from sumout.errors import ModelError
from sumout.infer.collapsing.recorded import no_room
from sumout.lower.collapse.refusals import NotConjugateError


def check_given(msg: Message, depends: bool) -> None:
    """Refuses a value that a handler outside gave a site, but for discrete ones, which it enumerates.

    Args:
        msg: the site.
        depends: whether it depends on delayed sites.
    """
    if depends and getattr(msg.plain_fn, "has_enumerate_support", False):
        if isinstance(msg.value, Tensor) and type(msg.value) in (Tensor, torch.nn.Parameter):
            return
        raise no_room(msg.name)
    raise ModelError(
        f"Site {msg.name!r} is integrated out, and a handler gives it a value, as a guide or replay does. Leave it out "
        "of the guide, or let it be: infer={'collapse': False}. To observe a value use condition."
    )


def refuse_left_alone(msg: Message, delayed: list[Delayed], reasons: Collection[str]) -> None:
    """Raises ``NotConjugateError`` for a latent site that is not to be integrated out, and depends on one that is.

    Args:
        msg: the site.
        delayed: the delayed values that it depends on.
        reasons: the sites that turned out to have no closed form.
    """
    marked = msg.infer.get("collapse") is False
    if delayed and not msg.is_observed and (marked or msg.name in reasons):
        names = tuple(dict.fromkeys([name for value in delayed for name in value.sites]))
        listed = " and ".join(map(repr, names))
        told = "is marked infer={'collapse': False}" if marked else "has no closed form"
        raise NotConjugateError(
            f"Site {msg.name!r} {told} and depends on the delayed site {listed}, which "
            "has no value that it could be drawn with. Leave out that site, too, or draw it first: poutine.barrier.",
            names,
        )


def refuse_settled(msg: Message, value: Delayed, settled: Collection[str]) -> None:
    gone = [name for name in value.sites if name in settled]
    if gone:
        raise ModelError(
            f"Site {msg.name!r} depends on the delayed value of site {gone[0]!r}, which was drawn at a barrier. Use "
            "what barrier returned, and pass each value that is needed through a barrier."
        )
