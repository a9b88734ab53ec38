"""Double precision, and the change-of-variables formula as an oracle for every bijective reparameterizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from sumout.effects.handlers import condition, reparam, replay, trace
from sumout.effects.trace import site_is_subsample

Program = Callable[[], Any]


@pytest.fixture(autouse=True)
def _double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def latent_sites(seen: Any) -> list[str]:
    """Latent sites but for those of plates."""
    return [name for name in seen.stochastic_nodes if not site_is_subsample(seen.nodes[name])]


def free_coordinates(value: Tensor) -> Tensor:
    """A chart of the simplex, in which densities of simplex-valued distributions are given."""
    return value[..., :-1]


def check_density(
    model: Program, config: Any, auxiliary: str, coordinates: Callable[[Tensor], Tensor] = lambda value: value
) -> Any:
    """The site "x" of a program, reparameterized by one auxiliary site, has the density that it had.

    With ``x = f(a)``: ``log p(a) = log p(x) + log |det df/da|``, the determinant by autograd. ``model`` has no
    other site. Returns the trace of the reparameterized program.
    """
    program = reparam(model, config=config)
    seen = trace(program).get_trace()
    site = seen.nodes[auxiliary]
    at = site["value"].detach()
    shape = at.shape

    def transformed(flat: Tensor) -> Tensor:
        with_value = condition(program, data={auxiliary: flat.reshape(shape)})
        return coordinates(trace(with_value).get_trace().nodes["x"]["value"]).reshape(-1)

    jacobian: Tensor = torch.autograd.functional.jacobian(transformed, at.reshape(-1))  # type: ignore[assignment]
    assert jacobian.shape[0] == jacobian.shape[1]
    original = trace(condition(model, data={"x": seen.nodes["x"]["value"].detach()})).get_trace()
    expected = original.log_prob_sum() + jacobian.slogdet()[1]
    torch.testing.assert_close(seen.log_prob_sum(), expected, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(seen.nodes["x"]["value"].shape, original.nodes["x"]["value"].shape)
    return seen


def check_observed(model: Program, config: Any, auxiliary: str, batch: bool = True) -> None:
    """Where "x" is observed, its density is the original one, element by element of the batch."""
    with torch.no_grad():
        x = trace(model).get_trace().nodes["x"]["value"]
    observed = condition(model, data={"x": x})
    original = trace(observed).get_trace()
    seen = trace(reparam(observed, config=config)).get_trace()
    assert latent_sites(seen) == []
    assert seen.nodes["x"]["value"] is x
    found = seen.nodes[auxiliary]["log_prob"] + seen.nodes["x"]["log_prob"] if batch else seen.log_prob_sum()
    expected = original.nodes["x"]["log_prob"] if batch else original.log_prob_sum()
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def check_replayed(model: Program, config: Any, auxiliary: str) -> None:
    """A value set inside is kept, and the auxiliary value leads to it."""
    before = trace(model).get_trace()
    seen = trace(reparam(replay(model, trace=before), config=config)).get_trace()
    assert latent_sites(seen) == [auxiliary]
    x = seen.nodes["x"]["value"]
    assert x is before.nodes["x"]["value"]
    again = condition(reparam(model, config=config), data={auxiliary: seen.nodes[auxiliary]["value"]})
    torch.testing.assert_close(trace(again).get_trace().nodes["x"]["value"], x, rtol=1e-6, atol=1e-8)


@pytest.fixture(scope="session")
def density_is_kept() -> Callable[..., Any]:
    return check_density


@pytest.fixture(scope="session")
def observed_density_is_kept() -> Callable[..., None]:
    return check_observed


@pytest.fixture(scope="session")
def replayed_value_is_kept() -> Callable[..., None]:
    return check_replayed


@pytest.fixture(scope="session")
def in_simplex() -> Callable[[Tensor], Tensor]:
    return free_coordinates


@pytest.fixture(scope="session")
def latent() -> Callable[[Any], list[str]]:
    return latent_sites
