"""Two kinds of eruptions: a Gaussian mixture on Old Faithful.

The geyser Old Faithful in Yellowstone erupts for two minutes or for four, and after a long eruption one waits longer
for the next. Which kind an eruption was is hidden; `sumout` sums it out, and the parameters climb the exact
likelihood. Waiting times alone, under one common spread, have a published fit: Benaglia, Chauveau, Hunter and Young,
*mixtools: An R package for analyzing finite mixture models*, Journal of Statistical Software 32 (2009).

    python docs/examples/faithful.py
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

import torch
from fitting import Fit, maximum_likelihood
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.distributions import constraints

import sumout
import sumout.distributions as dist
from sumout import infer
from sumout.errors import MissingExtraError

HERE = Path(__file__).parent
DATA = HERE / "data" / "faithful.csv"
PICTURE = HERE / "faithful.png"
# Waiting times alone, two kinds with one spread: shares, means and spread in minutes.
PUBLISHED = {"weights": (0.361, 0.639), "means": (54.61, 80.09), "spread": 5.87, "log_likelihood": -1034.002}


def read_eruptions() -> Tensor:
    """How long each eruption lasted and how long one waited for the next, in minutes: shape (272, 2)."""
    with DATA.open(newline="") as file:
        rows = [[float(row["eruption"]), float(row["waiting"])] for row in csv.DictReader(file)]
    return torch.tensor(rows).double()


# ----------------------------------------------------------------------------------------------- the models


def plane(eruptions: Tensor, kinds: int) -> None:
    """Each kind of eruption is a normal in the plane, with a covariance of its own."""
    shares = (torch.arange(kinds).double() + 0.5) / kinds
    centres = torch.stack([column.quantile(shares) for column in eruptions.T], -1)
    start = torch.diag(eruptions.std(0) / 2).expand(kinds, 2, 2)
    weights = sumout.param("weights", torch.ones(kinds).double() / kinds, constraint=constraints.simplex)
    means = sumout.param("means", centres)
    factors = sumout.param("factors", start.clone(), constraint=constraints.lower_cholesky)
    with sumout.plate("eruptions", len(eruptions)):
        kind = sumout.sample("kind", dist.Categorical(weights), infer={"enumerate": "parallel"})
        sumout.sample(
            "eruption", dist.MultivariateNormal(means[kind], scale_tril=factors[kind]), obs=eruptions
        )


def waits(minutes: Tensor) -> None:
    """Waiting times of two kinds, with one spread."""
    weights = sumout.param("weights", torch.ones(2).double() / 2, constraint=constraints.simplex)
    means = sumout.param("means", torch.tensor([55.0, 80.0]).double())
    spread = sumout.param("spread", torch.tensor(5.0).double(), constraint=constraints.positive)
    with sumout.plate("eruptions", len(minutes)):
        kind = sumout.sample("kind", dist.Categorical(weights), infer={"enumerate": "parallel"})
        sumout.sample("wait", dist.Normal(means[kind], spread), obs=minutes)


# ---------------------------------------------------------------------------------------------- the results


def waits_beside_published(found: Fit) -> Table:
    table = Table(title="Waiting times alone, one spread", box=box.SIMPLE)
    for heading in ("", "ours", "published"):
        table.add_column(heading, justify="left" if not heading else "right")
    for i, kind in enumerate(("short", "long")):
        for name, digits in (("weights", 3), ("means", 2)):
            ours, theirs = found.values[name][i].item(), PUBLISHED[name][i]  # type: ignore[index]
            table.add_row(f"{name[:-1]}, {kind}", f"{ours:.{digits}f}", f"{theirs:.{digits}f}")
    table.add_row("spread, minutes", f"{found.values['spread'].item():.2f}", f"{PUBLISHED['spread']:.2f}")
    table.add_row("log likelihood", f"{found.log_likelihood:.3f}", f"{PUBLISHED['log_likelihood']:.3f}")
    return table


def numbers_of_kinds(fits: dict[int, Fit], observations: int) -> Table:
    """How many kinds? The Bayesian information criterion charges log(n) / 2 a parameter."""
    table = Table(title="Eruptions and waiting times together", box=box.SIMPLE)
    for heading in ("kinds", "log likelihood", "parameters", "BIC", "evaluations", "s"):
        table.add_column(heading, justify="right")
    for kinds, found in fits.items():
        free = 6 * kinds - 1
        bic = -2 * found.log_likelihood + free * math.log(observations)
        table.add_row(
            str(kinds),
            f"{found.log_likelihood:.3f}",
            str(free),
            f"{bic:.1f}",
            str(found.evaluations),
            f"{found.seconds:.1f}",
        )
    return table


def ellipse(mean: Tensor, factor: Tensor, radius: float) -> Tensor:
    """Points at one Mahalanobis distance from the mean, shape (2, 100)."""
    angle = torch.linspace(0, 2 * math.pi, 100).double()
    return mean[:, None] + radius * factor @ torch.stack([angle.cos(), angle.sin()])


def draw(eruptions: Tensor, found: Fit, long: Tensor, alone: Fit, to: Path) -> None:
    """Eruptions by how sure one is of their kind; waiting times with the fitted densities."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "The picture") from error

    colours = ("#3b6fb6", "#c4432b")
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), width_ratios=(3, 2), layout="constrained")
    dots = left.scatter(*eruptions.T, c=long, cmap="coolwarm", s=18, edgecolors="0.4", linewidths=0.3)
    order = found.values["means"][:, 0].argsort().tolist()
    for colour, k, name in zip(colours, order, ("short", "long"), strict=True):
        for radius in (1, 2):
            curve = ellipse(found.values["means"][k], found.values["factors"][k], radius)
            label = f"{name} ones: {found.values['weights'][k]:.0%}, 1 and 2 sigma" if radius == 1 else None
            left.plot(*curve, color=colour, linewidth=1.4, label=label)
    left.set(xlabel="length of the eruption, minutes", ylabel="wait for the next, minutes")
    left.set_title("272 eruptions of Old Faithful, two normals")
    left.legend(frameon=False, loc="upper left")
    figure.colorbar(dots, ax=left, label="P(a long one | data)")

    right.hist(eruptions[:, 1], bins=24, density=True, color="0.85", edgecolor="0.7")
    grid = torch.linspace(40, 100, 200).double()
    each = dist.Normal(alone.values["means"], alone.values["spread"]).log_prob(grid[:, None]).exp()
    each = each * alone.values["weights"]
    for colour, density, name in zip(colours, each.T, ("short ones", "long ones"), strict=True):
        right.plot(grid, density, color=colour, linewidth=1.2, label=name)
    right.plot(grid, each.sum(-1), color="black", linewidth=1.4, label="both")
    right.set(xlabel="wait, minutes", ylabel="density, 1 / minute")
    right.set_title("Waiting times alone, one spread")
    right.legend(frameon=False)
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, dpi=110)
    plt.close(figure)


def main(picture: Path = PICTURE) -> tuple[Fit, dict[int, Fit]]:
    console = Console()
    eruptions = read_eruptions()
    alone = maximum_likelihood(waits, eruptions[:, 1])
    console.print(waits_beside_published(alone))
    fits = {kinds: maximum_likelihood(plane, eruptions, kinds) for kinds in (1, 3, 2)}
    console.print(numbers_of_kinds(dict(sorted(fits.items())), len(eruptions)))
    # The params of the last fit, that of two kinds, are still in the store.
    probs = infer.marginals(plane)(eruptions, 2)["kind"].probs.detach()
    long = probs[:, fits[2].values["means"][:, 0].argmax()]
    console.print(f"{int(((long > 0.01) & (long < 0.99)).sum())} eruptions are not clearly of one kind.")
    draw(eruptions, fits[2], long, alone, picture)
    console.print(f"Eruptions and waiting times drawn in {picture}")
    return alone, fits


if __name__ == "__main__":
    main()
