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


def refuse_left_alone(msg: Message, delayed: list[Delayed]) -> None:
    """Raises ``NotConjugateError`` for a latent site that is not to be integrated out, and depends on one that is."""
    if delayed and not msg.is_observed and msg.infer.get("collapse") is False:
        names = tuple(dict.fromkeys([name for value in delayed for name in value.sites]))
        listed = " and ".join(map(repr, names))
        raise NotConjugateError(
            f"Site {msg.name!r} is marked infer={{'collapse': False}} and depends on the delayed site {listed}, which "
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
