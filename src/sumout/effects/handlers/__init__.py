"""All handlers: the class form of each, and the function form that ``wrap`` makes of it."""

from __future__ import annotations

from sumout.effects.handlers.block import BlockMessenger, block
from sumout.effects.handlers.broadcast import BroadcastMessenger, broadcast
from sumout.effects.handlers.condition import ConditionMessenger, condition
from sumout.effects.handlers.contexts import MarkovMessenger
from sumout.effects.handlers.do import DoMessenger, do
from sumout.effects.handlers.enum import EnumMessenger, enum
from sumout.effects.handlers.equalize import EqualizeMessenger, equalize
from sumout.effects.handlers.escape import EscapeMessenger, escape
from sumout.effects.handlers.guide import GuideMessenger
from sumout.effects.handlers.indep import IndepMessenger
from sumout.effects.handlers.infer_config import InferConfigMessenger, infer_config
from sumout.effects.handlers.lift import LiftMessenger, lift
from sumout.effects.handlers.markov import markov, vectorized_markov
from sumout.effects.handlers.mask import MaskMessenger, mask
from sumout.effects.handlers.plate import PlateMessenger, block_plate
from sumout.effects.handlers.queue import queue
from sumout.effects.handlers.reentrant import ReentrantMessenger
from sumout.effects.handlers.reparam import ReparamMessenger, reparam
from sumout.effects.handlers.replay import ReplayMessenger, replay
from sumout.effects.handlers.scale import ScaleMessenger, scale
from sumout.effects.handlers.seed import SeedMessenger, seed
from sumout.effects.handlers.subsample import SubsampleMessenger
from sumout.effects.handlers.substitute import SubstituteMessenger, substitute
from sumout.effects.handlers.trace import TraceHandler, TraceMessenger, identify_dense_edges, trace
from sumout.effects.handlers.uncondition import UnconditionMessenger, uncondition
from sumout.effects.handlers.wrap import Handler, wrap

__all__ = [
    "BlockMessenger",
    "BroadcastMessenger",
    "ConditionMessenger",
    "DoMessenger",
    "EnumMessenger",
    "EqualizeMessenger",
    "EscapeMessenger",
    "GuideMessenger",
    "Handler",
    "IndepMessenger",
    "InferConfigMessenger",
    "LiftMessenger",
    "MarkovMessenger",
    "MaskMessenger",
    "PlateMessenger",
    "ReentrantMessenger",
    "ReparamMessenger",
    "ReplayMessenger",
    "ScaleMessenger",
    "SeedMessenger",
    "SubsampleMessenger",
    "SubstituteMessenger",
    "TraceHandler",
    "TraceMessenger",
    "UnconditionMessenger",
    "block",
    "block_plate",
    "broadcast",
    "condition",
    "do",
    "enum",
    "equalize",
    "escape",
    "identify_dense_edges",
    "infer_config",
    "lift",
    "markov",
    "mask",
    "queue",
    "reparam",
    "replay",
    "scale",
    "seed",
    "substitute",
    "trace",
    "uncondition",
    "vectorized_markov",
    "wrap",
]
