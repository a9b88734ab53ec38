"""Conjugate sites in a vectorized chain, one for each step: the integrals that a loop would have had."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from sumout.effects.steps import ChainStep, family, unrolled_step
from sumout.errors import ModelError
from sumout.lower.collapse.chains import single_steps
from sumout.lower.collapse.collapse import Integral
from sumout.lower.collapse.conjugate import Star


def step_integrals(integral: Integral) -> list[Integral]:
    """An integral over all steps of a conjugate site as one for each step, with the names of a loop; others as is."""
    star = integral._solution
    step = unrolled_step(star.latent.message) if isinstance(star, Star) else None
    if not isinstance(star, Star) or step is None:
        return [integral]
    assert step.dim is not None
    axis = star.latent.value.dim() + step.dim - len(star.latent.fn.event_shape)
    axis += len(star.names)
    found = []
    for t, (name, site) in enumerate(single_steps(integral._latents).items()):
        message = site.message.copy()
        message.name = name
        message.infer = {key: each for key, each in message.infer.items() if key != "_chain"}
        single = site._replace(message=message)
        at = _at(axis, t, drop=axis == len(star.names))
        own = Star(
            single,
            tuple([_name_at(each, step, t) for each in star.names]),
            tuple([at(each) for each in star.prior]),
            tuple([at(each) for each in star.natural]),
            at(star.base),
        )
        names, table = integral.names, integral.log_evidence
        if step.chain in names:
            table = table.select(names.index(step.chain), t)
        names = tuple([_name_at(each, step, t) for each in names if each != step.chain])
        found.append(
            replace(
                integral, names=names, log_evidence=table, first=name, _latents={name: single}, _solution=own
            )
        )
    return found


def _at(axis: int, t: int, drop: bool) -> Callable[[Tensor], Tensor]:
    """One step along an axis, which stays with size one unless it is dropped."""
    return lambda x: x.select(axis, t) if drop else x.narrow(axis, t, 1)


def _name_at(name: str, step: ChainStep, t: int) -> str:
    """What a discrete site of the same chain is called at a step; other names stay."""
    try:
        before, after = family(name, step)
    except ModelError:
        return name
    return f"{before}{step.start + t}{after}"
