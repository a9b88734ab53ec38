"""Annotation models and topics: what many small observations say of a hidden class."""

from __future__ import annotations

from typing import Any

import torch

from models.language import Program, at, model, numbers, positive, real, simplex, unit, vector

GRADES = torch.tensor([[0, 2, 1, 0], [0, 1, 1, 2], [1, 2, 1, 0]])  # graders, patients


@model(
    latent=("truth",),
    observed=("grade",),
    discrete=("truth",),
    max_plate_nesting=2,
    params=("prevalence", "confusion"),
)
def dawid_skene(ppl: Any) -> Program:
    """Graders who err each in their own way; nobody knows the truth. Dawid and Skene (1979)."""

    def program() -> Any:
        prevalence, confusion = simplex(ppl, "prevalence", 3), simplex(ppl, "confusion", 3, 3, 3)
        graders = ppl.plate("graders", 3, dim=-2)
        with ppl.plate("patients", 4, dim=-1):
            truth = ppl.sample("truth", ppl.dist.Categorical(prevalence))
            with graders:
                probs = at(confusion, torch.arange(3)[:, None], truth)
                ppl.sample("grade", ppl.dist.Categorical(probs), obs=GRADES)

    return program


@model(
    latent=("truth", "spam"),
    observed=("grade",),
    discrete=("truth", "spam"),
    max_plate_nesting=2,
    params=("prevalence", "careless", "habits"),
)
def spamming_graders(ppl: Any) -> Program:
    """Each grade is the truth, or made up without a look. Hovy, Berg-Kirkpatrick, Vaswani and Hovy (2013)."""
    grades = GRADES[:2]

    def program() -> Any:
        prevalence, careless = simplex(ppl, "prevalence", 3), unit(ppl, "careless", 2)
        habits = simplex(ppl, "habits", 2, 3)
        with ppl.plate("patients", 4, dim=-1):
            truth = ppl.sample("truth", ppl.dist.Categorical(prevalence))
            with ppl.plate("graders", 2, dim=-2):
                spam = ppl.sample("spam", ppl.dist.Bernoulli(careless[:, None]))
                honest = at(0.97 * torch.eye(3).double() + 0.01, truth)
                probs = torch.where((spam == 1)[..., None], habits[:, None, :], honest)
                ppl.sample("grade", ppl.dist.Categorical(probs), obs=grades)

    return program


@model(
    latent=("truth", "hard"),
    observed=("grade",),
    discrete=("truth", "hard"),
    max_plate_nesting=2,
    params=("prevalence", "hard", "easy_rate", "hard_rate"),
)
def item_difficulty(ppl: Any) -> Program:
    """Some patients are easy to grade, for all graders. Carpenter (2008) has a continuous form."""

    def program() -> Any:
        prevalence, hard_share = simplex(ppl, "prevalence", 3), unit(ppl, "hard")
        easy, difficult = unit(ppl, "easy_rate", 3), unit(ppl, "hard_rate", 3)
        with ppl.plate("patients", 4, dim=-1):
            truth = ppl.sample("truth", ppl.dist.Categorical(prevalence))
            hard = ppl.sample("hard", ppl.dist.Bernoulli(hard_share))
            with ppl.plate("graders", 3, dim=-2):
                right = torch.where(hard == 1, 0.5 * difficult[:, None], 0.5 + 0.5 * easy[:, None])[..., None]
                probs = right * at(torch.eye(3).double(), truth) + (1 - right) / 3
                ppl.sample("grade", ppl.dist.Categorical(probs), obs=GRADES)

    return program


@model(
    latent=("truth",),
    observed=("grade",),
    discrete=("truth",),
    max_plate_nesting=2,
    params=("prevalence", "confusion"),
)
def incomplete_grades(ppl: Any) -> Program:
    """Not every grader has seen every patient: a mask."""
    graded = numbers(3, 4, turn=1.6) > 0.3

    def program() -> Any:
        prevalence, confusion = simplex(ppl, "prevalence", 3), simplex(ppl, "confusion", 3, 3, 3)
        with ppl.plate("patients", 4, dim=-1):
            truth = ppl.sample("truth", ppl.dist.Categorical(prevalence))
            with ppl.plate("graders", 3, dim=-2), ppl.mask(mask=graded):
                probs = at(confusion, torch.arange(3)[:, None], truth)
                ppl.sample("grade", ppl.dist.Categorical(probs), obs=GRADES)

    return program


WORDS = torch.tensor([[0, 3], [1, 3], [0, 2], [4, 2]])  # words, documents


@model(
    latent=("topic",),
    observed=("word",),
    discrete=("topic",),
    max_plate_nesting=2,
    params=("mixture", "words"),
)
def lda(ppl: Any) -> Program:
    """Topics of words; each document has its own mixture of them, here a param."""

    def program() -> Any:
        mixture, words = simplex(ppl, "mixture", 2, 3), simplex(ppl, "words", 3, 5)
        with ppl.plate("documents", 2, dim=-1), ppl.plate("positions", 4, dim=-2):
            topic = ppl.sample("topic", ppl.dist.Categorical(mixture))
            ppl.sample("word", ppl.dist.Categorical(at(words, topic)), obs=WORDS)

    return program


def _lda_guide(ppl: Any) -> Program:
    def program() -> Any:
        with ppl.plate("topics", 2, dim=-1):
            ppl.sample("words", ppl.dist.Dirichlet(1.0 + positive(ppl, "q_words", 2, 5)))
        with ppl.plate("documents", 2, dim=-1):
            ppl.sample("mixture", ppl.dist.Dirichlet(1.0 + positive(ppl, "q_mixture", 2, 2)))

    return program


@model(
    latent=("words", "mixture", "topic"),
    observed=("word",),
    discrete=("topic",),
    max_plate_nesting=2,
    params=("concentration",),
    guide=_lda_guide,
    guided=("words", "mixture"),
)
def bayesian_lda(ppl: Any) -> Program:
    """Latent Dirichlet allocation with its priors, the topics summed out. Blei, Ng and Jordan (2003)."""

    def program() -> Any:
        concentration = positive(ppl, "concentration", 2)
        with ppl.plate("topics", 2, dim=-1):
            words = ppl.sample("words", ppl.dist.Dirichlet(torch.ones(5).double()))
        with ppl.plate("documents", 2, dim=-1):
            mixture = ppl.sample("mixture", ppl.dist.Dirichlet(concentration))
            with ppl.plate("positions", 4, dim=-2):
                topic = ppl.sample("topic", ppl.dist.Categorical(mixture))
                ppl.sample("word", ppl.dist.Categorical(at(words, topic)), obs=WORDS)

    return program


@model(
    latent=("occupied",),
    observed=("seen",),
    discrete=("occupied",),
    max_plate_nesting=2,
    params=("slope", "detection"),
)
def occupancy(ppl: Any) -> Program:
    """Is a species there, where it was not seen on any visit? MacKenzie and others (2002)."""
    seen = torch.tensor([[0, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]]).double()
    height = vector(-1.0, 0.0, 0.5, 2.0)

    def program() -> Any:
        slope, detection = real(ppl, "slope"), unit(ppl, "detection", 3)
        with ppl.plate("sites", 4, dim=-1):
            occupied = ppl.sample("occupied", ppl.dist.Bernoulli(logits=slope * height))
            with ppl.plate("visits", 3, dim=-2):
                ppl.sample("seen", ppl.dist.Bernoulli(detection[:, None] * occupied), obs=seen)

    return program
