"""Thirty young rats weighed in five weeks: sixty-two growth parameters integrated out, three spreads on a grid.

Each rat grows along a line of its own; intercepts and slopes are normal about those of the population. Data and
model: A. E. Gelfand and others, *Illustration of Bayesian inference in normal data models using Gibbs sampling*,
Journal of the American Statistical Association 85 (1990); an example of BUGS ("Rats", Examples volume I). Given the
three standard deviations all is normal, so that only these are left, and an integral over a grid of them has no
sampling error.

    python docs/examples/rats.py
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
DATA = HERE / "data" / "rats.csv"
PICTURE = HERE / "rats.png"
DAYS = torch.tensor([8.0, 15.0, 22.0, 29.0, 36.0]).double()
MIDDLE = 22.0
PUBLISHED = {"intercept": (106.6, 3.7), "slope": (6.19, 0.11), "noise": (6.1, 0.46)}
"""Posterior means and standard deviations by BUGS, from samples; rounded."""


def read_weights() -> Tensor:
    """Weights in grams, shape (30 rats, 5 days)."""
    with DATA.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return torch.tensor([[float(each) for each in row] for row in rows]).double()


# ------------------------------------------------------------------------------------------------ the model


def model(noise: Tensor, levels: Tensor, slopes: Tensor, weight: Tensor) -> None:
    """The rats for many values of the three standard deviations at once: shape (points, 1, 1)."""
    with plate("points", len(noise), dim=-3), poutine.collapse():
        wide = torch.full_like(noise, 1e3)
        level = sample("level", dist.Normal(0.0, wide))
        slope = sample("slope", dist.Normal(0.0, wide))
        with plate("rats", len(weight), dim=-2):
            own_level = sample("own_level", dist.Normal(level, levels))
            own_slope = sample("own_slope", dist.Normal(slope, slopes))
            with plate("days", len(DAYS), dim=-1):
                sample("weight", dist.Normal(own_level + own_slope * (DAYS - MIDDLE), noise), obs=weight)


class Posterior(NamedTuple):
    """Means and standard deviations of what BUGS reports, and the posterior means of each rat's line, shape (30,)."""

    values: dict[str, tuple[float, float]]
    own_level: Tensor
    own_slope: Tensor


def posterior(points: int = 14) -> Posterior:
    """The trapezoidal rule in the logarithms of the three standard deviations."""
    weight = read_weights()
    ends = ((4.6, 8.2), (9.5, 23.0), (0.28, 0.9))  # Beyond them there is next to nothing.
    axes = [torch.linspace(*torch.tensor(each).log().tolist(), points).double() for each in ends]
    logs = [each.reshape(-1, 1, 1) for each in torch.meshgrid(*axes, indexing="ij")]
    noise, levels, slopes = [each.exp() for each in logs]
    record = poutine.trace(model).get_trace(noise, levels, slopes, weight)
    evidence = record.nodes["_collapsed_level"]["fn"].log_factor.reshape(-1)
    # Each precision has the prior Gamma(0.001, 0.001); in the logarithm of the precision it is nearly uniform.
    prior = sum([-0.002 * each - 0.001 * (-2 * each).exp() for each in logs]).reshape(-1)
    weights = (evidence + prior).softmax(0)
    found = infer.marginals(model)(noise, levels, slopes, weight)
    level, slope = found["level"], found["slope"]
    # The intercept is level - 22 slope; the design is symmetric about the middle, so that the two are independent.
    moments = {
        "intercept": (level.mean - MIDDLE * slope.mean, level.variance + MIDDLE**2 * slope.variance),
        "slope": (slope.mean, slope.variance),
        "noise": (noise, torch.zeros_like(noise)),
    }
    values = {}
    for name, (mean, variance) in moments.items():
        mean, variance = mean.reshape(-1), variance.reshape(-1)
        total = (weights * mean).sum()
        values[name] = float(total), float((weights * (variance + (mean - total) ** 2)).sum().sqrt())
    own = [
        (weights[:, None] * found[name].mean.reshape(len(weights), -1)).sum(0)
        for name in ("own_level", "own_slope")
    ]
    return Posterior(values, *own)


# ---------------------------------------------------------------------------------------------- the results


def summary(found: Posterior) -> Table:
    table = Table(title="Growth of thirty rats", box=box.SIMPLE)
    for heading in ("", "mean", "sd", "BUGS: mean", "sd"):
        table.add_column(heading, justify="right" if heading else "left")
    meanings = {"intercept": "weight at birth, g", "slope": "growth, g a day", "noise": "noise, g"}
    for name, (mean, spread) in found.values.items():
        published = [str(each) for each in PUBLISHED[name]]
        table.add_row(meanings[name], f"{mean:.3f}", f"{spread:.4f}", *published)
    return table


def draw(found: Posterior, to: Path) -> None:
    """The weights with each rat's line, and how least-squares slopes are drawn together."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "The picture") from error

    weight = read_weights()
    away = DAYS - MIDDLE
    raw_slope = (weight * away).sum(-1) / away.square().sum()
    raw_level = weight.mean(-1)
    figure, (lines, shrunk) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for i in range(len(weight)):
        lines.plot(DAYS, found.own_level[i] + found.own_slope[i] * away, color="#3b6fb6", linewidth=0.7)
    lines.plot(DAYS.expand_as(weight).T, weight.T, "o", color="0.25", markersize=2)
    lines.set(xlabel="day", ylabel="weight, g", xticks=DAYS.tolist())
    for i in range(len(weight)):
        ends = [raw_level[i], found.own_level[i]], [raw_slope[i], found.own_slope[i]]
        shrunk.plot(*ends, color="0.7", linewidth=0.8)
    shrunk.plot(raw_level, raw_slope, "x", color="#c4432b", markersize=5, label="least squares, rat by rat")
    shrunk.plot(found.own_level, found.own_slope, "o", color="#3b6fb6", markersize=4, label="posterior mean")
    shrunk.set(xlabel="weight on day 22, g", ylabel="growth, g a day")
    shrunk.legend(frameon=False)
    figure.suptitle("Rats: lines of their own, drawn towards the population's")
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, dpi=110)
    plt.close(figure)


def main(picture: Path = PICTURE) -> Posterior:
    console = Console()
    found = posterior()
    console.print(summary(found))
    draw(found, picture)
    console.print(f"Drawn in {picture}")
    return found


if __name__ == "__main__":
    main()
