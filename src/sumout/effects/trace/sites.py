"""What kind of site a site is."""

from __future__ import annotations

from sumout.effects.frame import CondIndepStackFrame
from sumout.effects.message import Message


def _kind(site: Message) -> str:
    # A site of a plain dictionary, as other libraries have, will do too.
    return type(site.plain_fn if isinstance(site, Message) else site["fn"]).__name__


def site_is_subsample(site: Message) -> bool:
    """Whether the site holds the indices that a subsampling plate drew.

    >>> site_is_subsample(Message(type="sample", name="z"))
    False
    """
    return site["type"] == "sample" and _kind(site) == "_Subsample"


def site_is_factor(site: Message) -> bool:
    """Whether the site was made by a ``factor`` statement.

    >>> site_is_factor(Message(type="sample", name="z"))
    False
    """
    return site["type"] == "sample" and _kind(site) == "Unit"


def tensor_plates(site: Message) -> dict[int, CondIndepStackFrame]:
    """The plates of a site that are tensor dimensions, by dimension, outermost first.

    >>> looped, vectorized = CondIndepStackFrame("i", None, 3, 1), CondIndepStackFrame("data", -1, 10)
    >>> {dim: frame.name for dim, frame in tensor_plates(Message(cond_indep_stack=(looped, vectorized))).items()}
    {-1: 'data'}
    """
    return {frame.dim: frame for frame in site.cond_indep_stack if frame.dim is not None}


def allow_all_sites(name: str, site: Message) -> bool:
    """The site filter that lets every site pass."""
    return True
