"""The masked but unscaled log-probabilities of sites."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sumout.effects import Message
from sumout.effects.scoring import apply_mask, score


def log_probs(sites: Sequence[Message]) -> list[Tensor]:
    """One tensor for each site, of the shape of the site's batch with its enumerated dimensions on the left."""
    return [apply_mask(score(site).unscaled_log_prob, site.mask) for site in sites]
