"""The record of a run."""

from __future__ import annotations

from sumout.effects.trace.container import Nodes, Trace, prune_subsample_sites, sample_sites
from sumout.effects.trace.edges import dense_edges
from sumout.effects.trace.extend import all_escape, discrete_escape, enum_extend, mc_extend
from sumout.effects.trace.sites import allow_all_sites, site_is_factor, site_is_subsample, tensor_plates

__all__ = [
    "Nodes",
    "Trace",
    "all_escape",
    "allow_all_sites",
    "dense_edges",
    "discrete_escape",
    "enum_extend",
    "mc_extend",
    "prune_subsample_sites",
    "sample_sites",
    "site_is_factor",
    "site_is_subsample",
    "tensor_plates",
]
