"""Ten pumps of a nuclear plant: failure rates integrated out, the two parameters behind them on a grid.

Each pump fails at a rate of its own; the rates come from one gamma distribution, whose shape and rate nobody knows.
Data and model: E. I. George, U. E. Makov and A. F. M. Smith, *Conjugate likelihood distributions*, Scandinavian
Journal of Statistics 20 (1993); an example of BUGS ("Pumps", Examples volume I). The ten rates are integrated out in
closed form, so that two dimensions are left, and an integral over a grid of these has no sampling error.

    python docs/examples/pumps.py
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

import sumout.distributions as dist
from sumout import infer, plate, poutine, sample
from sumout.errors import MissingExtraError

HERE = Path(__file__).parent
DATA = HERE / "data" / "pumps.csv"
PICTURE = HERE / "pumps.png"
PUBLISHED = ["0.060", "0.10", "0.089", "0.12", "0.6", "0.61", "0.9", "0.9", "1.6", "2.0"]
"""Posterior means of the rates by BUGS, which are means of samples; rounded."""


def read_pumps() -> tuple[Tensor, Tensor]:
    """Thousands of hours of operation, and failures, of each pump. Shapes (10,)."""
    with DATA.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return (
        torch.tensor([float(row["hours"]) for row in rows]).double(),
        torch.tensor([float(row["failures"]) for row in rows]).double(),
    )


# ------------------------------------------------------------------------------------------------ the model


def model(shape: Tensor, rate: Tensor, hours: Tensor, failures: Tensor) -> None:
    """The pumps for given parameters of the gamma distribution, or for many of them at once: shape (points, 1)."""
    with plate("points", len(shape), dim=-2), poutine.collapse(), plate("pumps", len(hours), dim=-1):
        failing = sample("failing", dist.Gamma(shape, rate))
        sample("failures", dist.Poisson(failing * hours), obs=failures)


class Posterior(NamedTuple):
    """Means and standard deviations: of the ten rates, of the shape and the rate of their distribution."""

    mean: Tensor
    spread: Tensor
    hyper: Tensor


def posterior(points: int = 80) -> Posterior:
    """Integrals over a grid in the logarithms of shape and rate, by the trapezoidal rule."""
    hours, failures = read_pumps()
    log_shape = torch.linspace(-4.0, 2.0, points).double()
    log_rate = torch.linspace(-7.0, 3.0, points).double()
    shape, rate = [each.exp().reshape(-1, 1) for each in torch.meshgrid(log_shape, log_rate, indexing="ij")]
    record = poutine.trace(model).get_trace(shape, rate, hours, failures)
    evidence = record.nodes["_collapsed_failing"]["fn"].log_factor.reshape(-1)
    prior = dist.Exponential(torch.ones(()).double()).log_prob(shape) + dist.Gamma(0.1, 1.0).log_prob(rate)
    weights = (evidence + (prior + shape.log() + rate.log()).squeeze(-1)).softmax(0).unsqueeze(-1)
    failing = infer.marginals(model)(shape, rate, hours, failures)["failing"]
    mean = (weights * failing.mean).sum(0)
    second = (weights * (failing.variance + failing.mean**2)).sum(0)
    return Posterior(mean, (second - mean**2).sqrt(), torch.cat([weights * shape, weights * rate], -1).sum(0))


# ---------------------------------------------------------------------------------------------- the results


def summary(found: Posterior) -> Table:
    hours, failures = read_pumps()
    table = Table(title="Failures per thousand hours", box=box.SIMPLE)
    for heading in ("pump", "hours", "failures", "raw rate", "posterior mean", "sd", "BUGS"):
        table.add_column(heading, justify="right")
    for i in range(len(hours)):
        raw = failures[i] / hours[i]
        table.add_row(
            str(i + 1),
            f"{hours[i]:.2f}",
            f"{failures[i]:.0f}",
            f"{raw:.3f}",
            f"{found.mean[i]:.4f}",
            f"{found.spread[i]:.4f}",
            PUBLISHED[i],
        )
    return table


def draw(found: Posterior, to: Path) -> None:
    """Each pump's raw rate, and its posterior."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "The picture") from error

    hours, failures = read_pumps()
    raw = failures / hours
    figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    pumps = torch.arange(1, len(hours) + 1)
    axis.errorbar(
        pumps,
        found.mean,
        found.spread,
        fmt="o",
        color="#3b6fb6",
        capsize=3,
        label="posterior mean, one standard deviation",
    )
    axis.plot(pumps, raw, "x", color="#c4432b", label="failures per hours")
    axis.axhline(
        found.hyper[0] / found.hyper[1],
        color="0.6",
        linewidth=0.8,
        linestyle="--",
        label="mean shape / mean rate",
    )
    axis.set(xlabel="pump", ylabel="failures per thousand hours", xticks=pumps)
    axis.set_title("Pumps with few hours are drawn towards the others")
    axis.legend(frameon=False, loc="upper left")
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, dpi=110)
    plt.close(figure)


def main(picture: Path = PICTURE) -> Posterior:
    console = Console()
    found = posterior()
    console.print(summary(found))
    console.print(
        f"Posterior means of the gamma distribution's shape {found.hyper[0]:.4f} and rate {found.hyper[1]:.4f}"
    )
    draw(found, picture)
    console.print(f"Drawn in {picture}")
    return found


if __name__ == "__main__":
    main()
