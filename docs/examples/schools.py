"""Eight schools: how much did coaching help? Effects and their mean integrated out, their spread on a grid.

A. Gelman and others, *Bayesian Data Analysis*, 3rd edition (2013), section 5.5: estimated effects of coaching for a
test in eight schools, each with a known standard error. The effects are normal about a common mean, with a standard
deviation tau; mean and tau have uniform priors. Given tau all is normal and integrated out exactly, so that tau alone
is left.

    python docs/examples/schools.py
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
DATA = HERE / "data" / "schools.csv"
PICTURE = HERE / "schools.png"
FLAT = 1e4  # the standard deviation of a prior for the mean that is as good as uniform
# Posterior quantiles (2.5%, 25%, median, 75%, 97.5%) of the effects, from 200 draws: Gelman and others, table 5.3.
PUBLISHED = {
    "A": (-2, 7, 10, 16, 31),
    "B": (-5, 3, 8, 12, 23),
    "C": (-11, 2, 7, 11, 19),
    "D": (-7, 4, 8, 11, 21),
    "E": (-9, 1, 5, 10, 18),
    "F": (-7, 2, 6, 10, 28),
    "G": (-1, 7, 10, 15, 26),
    "H": (-6, 3, 8, 13, 33),
}
LEVELS = torch.tensor([0.025, 0.25, 0.5, 0.75, 0.975]).double()


def read_schools() -> tuple[Tensor, Tensor]:
    """Estimated effects and their standard errors. Shapes (8,)."""
    with DATA.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return (
        torch.tensor([float(row["effect"]) for row in rows]).double(),
        torch.tensor([float(row["error"]) for row in rows]).double(),
    )


# ------------------------------------------------------------------------------------------------ the model


def model(tau: Tensor, effect: Tensor, error: Tensor) -> None:
    """The schools for many values of tau at once: shape (points, 1)."""
    with plate("points", len(tau), dim=-2), poutine.collapse():
        mean = sample("mean", dist.Normal(torch.zeros_like(tau), FLAT))
        with plate("schools", len(effect), dim=-1):
            true = sample("true", dist.Normal(mean, tau))
            sample("effect", dist.Normal(true, error), obs=effect)


class Posterior(NamedTuple):
    """tau with its density, and for each school the quantiles ``LEVELS``, shape (8, 5)."""

    tau: Tensor
    density: Tensor
    quantiles: Tensor


def posterior(points: int = 400, largest: float = 100.0) -> Posterior:
    """A grid of midpoints for tau; the effects' posteriors are mixtures of normals over it."""
    effect, error = read_schools()
    tau = ((torch.arange(points).double() + 0.5) * largest / points).reshape(-1, 1)
    record = poutine.trace(model).get_trace(tau, effect, error)
    evidence = record.nodes["_collapsed_mean"]["fn"].log_factor.reshape(-1)
    weights = evidence.softmax(0)
    true = infer.marginals(model)(tau, effect, error)["true"]
    low = torch.full((len(effect), len(LEVELS)), -200.0).double()
    high = -low
    for _ in range(60):  # Bisection of the mixtures' distribution functions.
        middle = (low + high) / 2
        share = (
            weights[:, None, None] * dist.Normal(true.loc[..., None], true.scale[..., None]).cdf(middle)
        ).sum(0)
        low, high = torch.where(share < LEVELS, middle, low), torch.where(share < LEVELS, high, middle)
    return Posterior(tau.reshape(-1), weights * points / largest, (low + high) / 2)


# ---------------------------------------------------------------------------------------------- the results


def summary(found: Posterior) -> Table:
    effect, error = read_schools()
    table = Table(title="Effects of coaching", box=box.SIMPLE)
    for heading in ("school", "estimate", "error", "2.5%", "25%", "median", "75%", "97.5%", "published"):
        table.add_column(heading, justify="right")
    for i, school in enumerate(PUBLISHED):
        quantiles = [f"{each:.1f}" for each in found.quantiles[i]]
        table.add_row(
            school, f"{effect[i]:.0f}", f"{error[i]:.0f}", *quantiles, " ".join(map(str, PUBLISHED[school]))
        )
    return table


def draw(found: Posterior, to: Path) -> None:
    """The density of tau, and each school's effect with its estimate."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "The picture") from error

    effect, errors = read_schools()
    figure, (spread, schools) = plt.subplots(
        1, 2, figsize=(10, 4), width_ratios=(1, 1.6), layout="constrained"
    )
    spread.fill_between(found.tau, found.density, color="#3b6fb6", alpha=0.35, linewidth=0)
    spread.plot(found.tau, found.density, color="#3b6fb6")
    spread.set(
        xlim=(0, 30), ylim=(0, None), xlabel="tau: how much schools differ", ylabel="posterior density"
    )
    places = torch.arange(len(effect))
    q = found.quantiles
    schools.vlines(places, q[:, 0], q[:, 4], color="#3b6fb6", linewidth=1.5, label="95% of the posterior")
    schools.vlines(places, q[:, 1], q[:, 3], color="#3b6fb6", linewidth=5, label="half of it")
    schools.plot(places, q[:, 2], "o", color="white", markeredgecolor="#3b6fb6", markersize=5)
    schools.errorbar(
        places + 0.25,
        effect,
        errors,
        fmt="x",
        color="#c4432b",
        linewidth=0.8,
        label="estimate, one standard error",
    )
    schools.set_xticks(places, list(PUBLISHED))
    schools.set(xlabel="school", ylabel="effect, points")
    schools.legend(frameon=False, fontsize="small")
    figure.suptitle("Eight schools: effects and their mean integrated out")
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
