"""What the ``infer`` dictionary of a site may say."""

from __future__ import annotations

from typing import Any, Literal, TypedDict


class InferDict(TypedDict, total=False):
    """Wishes of the program and of handlers about the inference at a site. Other keys are kept."""

    enumerate: Literal["sequential", "parallel"]
    """How a discrete site is enumerated."""
    expand: bool
    """Whether enumerated values are expanded to the batch shape of the site."""
    num_samples: int
    """How many samples stand for the site's distribution, instead of its whole support."""
    tmc: Literal["diagonal", "mixture"]
    """How these samples are drawn along the dimensions of other sites."""
    is_auxiliary: bool
    """Whether the site belongs to a guide alone."""
    is_observed: bool
    """Whether the value is an observation though nobody passed it in, as that of ``factor``."""
    was_observed: bool
    """Whether ``uncondition`` took an observation away."""
    obs: Any
    """That observation."""
    prior: Any
    """The prior of a site whose distribution a guide chose."""
