"""Maximum likelihood for the examples: what is hidden summed out, the rest climbed with L-BFGS.

With few parameters and all data at hand, a second-order optimizer needs tens of evaluations where a first-order one
needs thousands. The second derivatives of the same exact likelihood give standard errors.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import sumout
from sumout import infer


@dataclass(frozen=True)
class Fit:
    """A maximum of the likelihood and what it took to find it."""

    log_likelihood: float
    values: dict[str, Tensor]  # of the params
    evaluations: int
    seconds: float


def maximum_likelihood(
    program: Callable[..., Any], *args: Any, steps: int = 200, report: Callable[[float], None] | None = None
) -> Fit:
    """Climbs from where the program's params begin, and forgets what is in the parameter store before.

    ``report`` is told the log-likelihood at each evaluation.
    """
    began = time.perf_counter()
    sumout.clear_param_store()
    log_likelihood = infer.log_evidence(program)
    log_likelihood(*args)  # the first call makes the params
    store = sumout.get_param_store()
    leaves = [leaf for _, leaf in store.named_parameters()]
    optimizer = torch.optim.LBFGS(
        leaves, max_iter=steps, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )
    losses: list[float] = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -log_likelihood(*args)
        loss.backward()
        losses.append(loss.item())
        if report is not None:
            report(-losses[-1])
        return loss

    optimizer.step(closure)
    values = {name: value.detach().clone() for name, value in store.items()}
    return Fit(-min(losses), values, len(losses), time.perf_counter() - began)


def standard_errors(program: Callable[..., Any], *args: Any) -> dict[str, Tensor]:
    """Standard errors of the params where they are now, from the curvature of the log-likelihood.

    The inverse of the negative Hessian in the unconstrained numbers is carried over to the params by the delta method.
    A direction without curvature, along which the data say nothing, gives an infinite standard error.
    """
    store = sumout.get_param_store()
    leaves = dict(store.named_parameters())
    log_likelihood = infer.log_evidence(program)(*args)
    grads = torch.autograd.grad(log_likelihood, list(leaves.values()), create_graph=True)
    flat = torch.cat([grad.reshape(-1) for grad in grads])
    rows = [
        torch.cat(
            [each.reshape(-1) for each in torch.autograd.grad(one, list(leaves.values()), retain_graph=True)]
        )
        for one in flat
    ]
    curvature, directions = torch.linalg.eigh(-torch.stack(rows))
    known = curvature > 1e-6 * curvature.max()
    spread = torch.where(known, curvature.clamp(min=1e-12).rsqrt(), torch.inf)
    errors = {}
    for name, value in store.items():
        jacobian = torch.stack(
            [_slopes(one, leaves) @ directions for one in value.reshape(-1)]
        )  # (elements of the param, directions)
        # 0 * inf: a param that an unknown direction does not touch has nothing to do with it.
        parts = torch.where(jacobian.abs() > 1e-6, jacobian * spread, torch.zeros_like(jacobian))
        errors[name] = parts.square().sum(-1).sqrt().reshape(value.shape)
    return errors


def _slopes(value: Tensor, leaves: dict[str, Tensor]) -> Tensor:
    grads = torch.autograd.grad(value, list(leaves.values()), retain_graph=True, allow_unused=True)
    pairs = zip(leaves.values(), grads, strict=True)
    return torch.cat(
        [torch.zeros_like(leaf).reshape(-1) if grad is None else grad.reshape(-1) for leaf, grad in pairs]
    )
