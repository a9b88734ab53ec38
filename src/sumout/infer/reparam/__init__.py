"""Reparameterizers: how a site is written in other variables, for ``sumout.poutine.reparam``.

Each leaves the joint distribution of the program as it is. ``reparam`` holds their base; ``strategies`` choose
among them for a whole program.
"""

from sumout.infer.reparam.conjugate import ConjugateReparam
from sumout.infer.reparam.discrete_cosine import DiscreteCosineReparam
from sumout.infer.reparam.haar import HaarReparam
from sumout.infer.reparam.hmm import LinearHMMReparam
from sumout.infer.reparam.loc_scale import LocScaleReparam
from sumout.infer.reparam.projected_normal import ProjectedNormalReparam
from sumout.infer.reparam.reparam import Reparam
from sumout.infer.reparam.softmax import GumbelSoftmaxReparam
from sumout.infer.reparam.split import SplitReparam
from sumout.infer.reparam.stable import LatentStableReparam, StableReparam, SymmetricStableReparam
from sumout.infer.reparam.strategies import AutoReparam, MinimalReparam, Strategy
from sumout.infer.reparam.studentt import StudentTReparam
from sumout.infer.reparam.transform import TransformReparam
from sumout.infer.reparam.unit_jacobian import UnitJacobianReparam

__all__ = [
    "AutoReparam",
    "ConjugateReparam",
    "DiscreteCosineReparam",
    "GumbelSoftmaxReparam",
    "HaarReparam",
    "LatentStableReparam",
    "LinearHMMReparam",
    "LocScaleReparam",
    "MinimalReparam",
    "ProjectedNormalReparam",
    "Reparam",
    "SplitReparam",
    "StableReparam",
    "Strategy",
    "StudentTReparam",
    "SymmetricStableReparam",
    "TransformReparam",
    "UnitJacobianReparam",
]
