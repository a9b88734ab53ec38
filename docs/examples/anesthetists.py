"""Who grades well? The anesthetists of Dawid and Skene.

Before an operation an anesthetist grades how fit a patient is, from 1 to 4. Five anesthetists graded 45 patients from
the same forms, the first of them three times. Nobody knows the true grades; they are summed out, and what remains is
how each anesthetist errs. Data, model and the published estimates are those of A. P. Dawid and A. M. Skene, *Maximum
likelihood estimation of observer error-rates using the EM algorithm*, Applied Statistics 28 (1979). Their algorithm
leads to their estimates, and climbing the exact likelihood leads higher.

    python docs/examples/anesthetists.py
"""

from __future__ import annotations

import csv
import time
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
DATA = HERE / "data" / "anesthetists.csv"
PICTURE = HERE / "anesthetists.png"
WHO = torch.tensor([0, 0, 0, 1, 2, 3, 4])  # whose gradings the seven columns are
# The published estimates: how common each grade is, and of the first anesthetist how grades 1 to 3 are graded.
PUBLISHED = {
    "prevalence": torch.tensor([0.40, 0.42, 0.11, 0.07]).double(),
    "confusion": torch.tensor(
        [[0.89, 0.11, 0.0, 0.0], [0.07, 0.88, 0.05, 0.0], [0.0, 0.34, 0.66, 0.0]]
    ).double(),
}


def read_gradings() -> Tensor:
    """Grades 0 to 3, shape (7 gradings, 45 patients)."""
    with DATA.open(newline="") as file:
        rows = [[int(cell) - 1 for cell in row[1:]] for row in list(csv.reader(file))[1:]]
    return torch.tensor(rows).T


# ------------------------------------------------------------------------------------------------ the model


def graded(gradings: Tensor, prevalence: Tensor, confusion: Tensor) -> None:
    """A true grade for each patient; each grading is right or wrong as its anesthetist is wont to be."""
    with sumout.plate("patients", gradings.shape[1], dim=-1):
        truth = sumout.sample("truth", dist.Categorical(prevalence), infer={"enumerate": "parallel"})
        with sumout.plate("gradings", len(WHO), dim=-2):
            sumout.sample("given", dist.Categorical(confusion[WHO[:, None], truth]), obs=gradings)


def model(gradings: Tensor) -> None:
    """The same with params: ``confusion`` by anesthetist, true grade and given grade."""
    prevalence, confusion = tables(gradings, shares(gradings), more=0.01)
    prevalence = sumout.param("prevalence", prevalence, constraint=constraints.simplex)
    confusion = sumout.param("confusion", confusion, constraint=constraints.simplex)
    graded(gradings, prevalence, confusion)


# ------------------------------------------------------------------------------------------------- two ways


def shares(gradings: Tensor) -> Tensor:
    """The share of each patient's gradings that each grade has, shape (patients, grades)."""
    return torch.nn.functional.one_hot(gradings, 4).double().mean(0)


def tables(gradings: Tensor, truth: Tensor, more: float = 0.0) -> tuple[Tensor, Tensor]:
    """Prevalence and confusion as they would be counted, were the true grades known with these probabilities."""
    votes = torch.nn.functional.one_hot(gradings, 4).double()  # gradings, patients, grades
    counts = torch.stack([torch.einsum("gpt,ps->st", votes[who == WHO], truth) for who in range(5)]) + more
    return truth.mean(0), counts / counts.sum(-1, keepdim=True)


def by_counting(gradings: Tensor, steps: int = 300) -> Fit:
    """The EM algorithm of the paper: count with the posterior of the true grades, and again."""
    began = time.perf_counter()
    posterior = infer.marginals(graded)
    truth = shares(gradings)
    log_likelihoods = [-torch.inf]
    for _ in range(steps):
        prevalence, confusion = tables(gradings, truth)
        answer = posterior(gradings, prevalence, confusion)
        truth = answer["truth"].probs
        log_likelihoods.append(answer.log_evidence.item())
        if log_likelihoods[-1] - log_likelihoods[-2] < 1e-9:
            break
    values = {"prevalence": prevalence, "confusion": confusion}
    return Fit(log_likelihoods[-1], values, len(log_likelihoods) - 1, time.perf_counter() - began)


def by_climbing(gradings: Tensor) -> Fit:
    """L-BFGS on the exact likelihood, from the same shares."""
    return maximum_likelihood(model, gradings, steps=1000)


# ---------------------------------------------------------------------------------------------- the results


def estimates(counted: Fit, climbed: Fit) -> Table:
    """Prevalence and the first anesthetist's error rates: the paper's, and ours by two ways."""
    table = Table(
        title="Probabilities of grades 1 to 4", box=box.SIMPLE, collapse_padding=True, pad_edge=False
    )
    for heading in ("", "published", "by EM", "by L-BFGS"):
        table.add_column(heading, justify="left" if not heading else "right")

    def show(probs: Tensor) -> str:
        return " ".join(f"{each:.2f}" for each in probs.tolist())

    both = [counted.values, climbed.values]
    table.add_row(
        "how common", show(PUBLISHED["prevalence"]), *(show(values["prevalence"]) for values in both)
    )
    for grade in range(3):
        label = f"no. 1, truly {grade + 1}"
        ours = (show(values["confusion"][0, grade]) for values in both)
        table.add_row(label, show(PUBLISHED["confusion"][grade]), *ours)
    table.add_row("log likelihood", "", *(f"{each.log_likelihood:.3f}" for each in (counted, climbed)))
    table.add_row("evaluations", "", *(str(each.evaluations) for each in (counted, climbed)))
    return table


def error_rates(found: Fit) -> Tensor:
    """How often each anesthetist gives another grade than the true one, shape (5,)."""
    right = found.values["confusion"].diagonal(dim1=-2, dim2=-1)
    return 1 - right @ found.values["prevalence"]


def disputed(gradings: Tensor, probs: Tensor) -> Table:
    """The patients whose true grade is not plain from the gradings."""
    table = Table(title="P(true grade | all gradings) where it is below 0.99", box=box.SIMPLE)
    for heading in ("patient", "gradings", "1", "2", "3", "4"):
        table.add_column(heading, justify="right")
    for patient in (probs.max(-1).values < 0.99).nonzero().flatten().tolist():
        given = (gradings[:, patient] + 1).tolist()
        shown = "".join(map(str, given[:3])) + " " + " ".join(map(str, given[3:]))
        table.add_row(str(patient + 1), shown, *(f"{each:.2f}" for each in probs[patient].tolist()))
    return table


def draw(found: Fit, to: Path) -> None:
    """Each anesthetist's table: true grade to given grade."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "The picture") from error

    figure, axes = plt.subplots(1, 5, figsize=(12, 3.1), sharey=True, layout="constrained")
    rates = error_rates(found)
    for who, axis in enumerate(axes):
        table = found.values["confusion"][who]
        image = axis.imshow(table.tolist(), cmap="Blues", vmin=0, vmax=1)
        for true in range(4):
            for given in range(4):
                value = table[true, given].item()
                if value >= 0.005:
                    colour = "white" if value > 0.6 else "black"
                    axis.text(given, true, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=9)
        axis.set_xticks(range(4), range(1, 5))
        axis.set_yticks(range(4), range(1, 5))
        axis.set_xlabel("grade given")
        times = " (three times)" if who == 0 else ""
        axis.set_title(f"Anesthetist {who + 1}{times}\nerrs {rates[who]:.0%}", fontsize=10)
    axes[0].set_ylabel("true grade")
    figure.colorbar(image, ax=axes, label="P(given | true)", shrink=0.9)
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, dpi=110)
    plt.close(figure)


def main(picture: Path = PICTURE) -> tuple[Fit, Fit]:
    console = Console()
    gradings = read_gradings()
    counted, climbed = by_counting(gradings), by_climbing(gradings)
    console.print(estimates(counted, climbed))
    answer = infer.marginals(graded)(gradings, climbed.values["prevalence"], climbed.values["confusion"])
    console.print(disputed(gradings, answer["truth"].probs))
    draw(climbed, picture)
    console.print(f"Error rates drawn in {picture}")
    return counted, climbed


if __name__ == "__main__":
    main()
