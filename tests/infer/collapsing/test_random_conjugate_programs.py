"""Random conjugate programs against quadrature: evidence, posteriors and gradients."""

from __future__ import annotations

import torch
from hypothesis import given, settings

from conjugate_programs import Program, programs, quadrature
from sumout import infer, poutine

EXACT = {"rtol": 1e-9, "atol": 1e-9}


@given(programs())
@settings(max_examples=30)
def test_evidence_posteriors_and_gradients(program: Program) -> None:
    program.hyper = torch.tensor([1.0, 1.1, 0.4], dtype=torch.float64, requires_grad=True)
    known = quadrature(program)
    found = infer.log_evidence(poutine.collapse(program))()
    torch.testing.assert_close(found, known.log_evidence, **EXACT)
    (wanted,) = torch.autograd.grad(known.log_evidence, program.hyper, retain_graph=True)
    (gradient,) = torch.autograd.grad(found, program.hyper)
    torch.testing.assert_close(gradient, wanted, rtol=1e-8, atol=1e-8)
    posterior = infer.marginals(poutine.collapse(program))()
    for name, points in known.points.items():
        density = posterior[name].log_prob(points)
        torch.testing.assert_close(density, known.log_density[name].expand(density.shape), **EXACT)
    for name, value in known.values.items():
        found = posterior[name].log_prob(value)
        torch.testing.assert_close(found, known.log_predicted[name].reshape(found.shape), **EXACT)
