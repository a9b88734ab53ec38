"""What are these chapters about? Latent Dirichlet allocation, with the topics of all words summed out.

Forty chapters from four books of the King James Bible of 1611, mixed up: the story of Joseph, the laws of offerings,
the proverbs of Solomon, the voyages of Paul. Each word has a topic that nobody sees, each chapter a mixture of topics,
each topic a distribution over words (Blei, Ng and Jordan, *Latent Dirichlet allocation*, 2003). A guide approximates
mixtures and topics; the hidden topics of the 7,822 single words are summed out exactly, so that they add no noise to
the gradients. Which book a chapter is from is not told to the model, and found.

    python docs/examples/topics.py
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.distributions import constraints

import sumout
import sumout.distributions as dist
from sumout import infer, optim, poutine
from sumout.errors import MissingExtraError

HERE = Path(__file__).parent
DATA = HERE / "data" / "kjv.txt"
PICTURE = HERE / "topics.png"
TOPICS = 4
STEPS = 400


@dataclass(frozen=True)
class Corpus:
    """Chapters as numbers of words; a chapter shorter than the longest is filled up, and ``present`` says where not."""

    titles: list[str]
    vocabulary: list[str]
    words: Tensor  # (positions, chapters)
    present: Tensor  # the same shape, bool

    def counts(self) -> Tensor:
        """How often each word is in each chapter, shape (chapters, vocabulary)."""
        found = torch.zeros(len(self.titles), len(self.vocabulary)).double()
        return found.scatter_add_(1, self.words.T, self.present.T.double())


def read_corpus() -> Corpus:
    """The chapters, without the words that are short, rare, or everywhere."""
    titles, texts = [], []
    for part in DATA.read_text().split("# ")[1:]:
        title, _, text = part.partition("\n")
        titles.append(title)
        texts.append(re.findall(r"[a-z]{4,}", text.lower().replace("'s", "")))
    total = Counter(word for text in texts for word in text)
    chapters = Counter(word for text in texts for word in set(text))
    vocabulary = sorted(word for word in total if total[word] >= 8 and chapters[word] <= 0.6 * len(texts))
    number = {word: i for i, word in enumerate(vocabulary)}
    rows = [torch.tensor([number[word] for word in text if word in number]) for text in texts]
    present = [torch.ones(len(row), dtype=torch.bool) for row in rows]
    pad = torch.nn.utils.rnn.pad_sequence
    return Corpus(titles, vocabulary, pad(rows), pad(present))


# ------------------------------------------------------------------------------------------------ the model


def model(corpus: Corpus) -> None:
    """Topics, mixtures of them, and words."""
    positions, chapters = corpus.words.shape
    with sumout.plate("topics", TOPICS, dim=-1):
        wording = sumout.sample(
            "wording", dist.Dirichlet(torch.full((len(corpus.vocabulary),), 0.5).double())
        )
    with sumout.plate("chapters", chapters, dim=-1):
        mixture = sumout.sample("mixture", dist.Dirichlet(torch.full((TOPICS,), 0.5).double()))
        with sumout.plate("positions", positions, dim=-2), poutine.mask(mask=corpus.present):
            topic = sumout.sample("topic", dist.Categorical(mixture), infer={"enumerate": "parallel"})
            sumout.sample("word", dist.Categorical(wording[topic]), obs=corpus.words)


def guide(corpus: Corpus) -> None:
    """A Dirichlet for each topic and for each mixture; single words need none."""
    total = corpus.counts().sum(0)
    noise = torch.rand(TOPICS, len(total), generator=torch.Generator().manual_seed(1)).double()
    start = 0.5 + total / TOPICS * (0.5 + noise)
    words = sumout.param("words", start, constraint=constraints.positive)
    shares = sumout.param(
        "shares", torch.full((len(corpus.titles), TOPICS), 5.0).double(), constraint=constraints.positive
    )
    with sumout.plate("topics", TOPICS, dim=-1):
        sumout.sample("wording", dist.Dirichlet(words))
    with sumout.plate("chapters", len(corpus.titles), dim=-1):
        sumout.sample("mixture", dist.Dirichlet(shares))


def train(corpus: Corpus, steps: int, console: Console) -> list[float]:
    """Minus the evidence lower bound at each step."""
    sumout.clear_param_store()
    sumout.set_rng_seed(0)
    svi = infer.SVI(model, guide, optim.Adam({"lr": 0.1}), infer.TraceEnum_ELBO(max_plate_nesting=2))
    return [svi.step(corpus) for _ in track(range(steps), "Topics", console=console)]


def mean_of(name: str) -> Tensor:
    """The mean of a Dirichlet of the guide."""
    concentration = sumout.param(name).detach()
    return concentration / concentration.sum(-1, keepdim=True)


# ---------------------------------------------------------------------------------------------- the results


def book(title: str) -> str:
    """The book that a chapter is from."""
    return title.rpartition(" ")[0]


def best_words(corpus: Corpus, many: int) -> list[list[str]]:
    """The words that each topic uses most above the average of all topics."""
    wording = mean_of("words")
    surplus = wording - wording.mean(0)
    return [[corpus.vocabulary[i] for i in row.topk(many).indices.tolist()] for row in surplus]


def matches(corpus: Corpus, mixture: Tensor) -> tuple[int, dict[int, str]]:
    """Topics named by the book that most of their chapters are from; how many chapters fall in with it."""
    main_topic = mixture.argmax(-1).tolist()
    names: dict[int, str] = {}
    right = 0
    for topic in range(TOPICS):
        books = Counter(
            book(title) for title, each in zip(corpus.titles, main_topic, strict=True) if each == topic
        )
        if books:
            names[topic], count = books.most_common(1)[0]
            right += count
    return (right if len(set(names.values())) == TOPICS else 0), names


def unigram_log_likelihood(corpus: Corpus) -> float:
    """Of all words, if every chapter drew them from one distribution."""
    counts = corpus.counts().sum(0)
    return float((counts * (counts / counts.sum()).log()).sum())


def summary(corpus: Corpus, names: dict[int, str]) -> Table:
    table = Table(title="Topics found, named by the book of most of their chapters", box=box.SIMPLE)
    table.add_column("book")
    table.add_column("words above average")
    for topic, words in enumerate(best_words(corpus, 9)):
        table.add_row(names.get(topic, "-"), " ".join(words))
    return table


def draw(corpus: Corpus, mixture: Tensor, names: dict[int, str], losses: list[float], to: Path) -> None:
    """The mixture of every chapter; how the bound was climbed; each topic's words."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "The picture") from error

    colours = ["#3b6fb6", "#e3a62f", "#c4432b", "#5b8c5a"]
    figure, axes = plt.subplot_mosaic("aaab;cdef", figsize=(12, 6.4), layout="constrained")
    mixtures, bound = axes["a"], axes["b"]
    bottom = torch.zeros(len(corpus.titles)).double()
    for topic in range(TOPICS):
        label = f"topic of {names.get(topic, 'no book')}"
        mixtures.bar(
            range(len(bottom)), mixture[:, topic], bottom=bottom, color=colours[topic], width=0.9, label=label
        )
        bottom = bottom + mixture[:, topic]
    books = [book(title) for title in corpus.titles]
    first = [i for i in range(len(books)) if i == 0 or books[i] != books[i - 1]]
    for i in first[1:]:
        mixtures.axvline(i - 0.5, color="black", linewidth=1)
    mixtures.set_xticks([i + 4.5 for i in first], [books[i] for i in first])
    mixtures.set(ylabel="share of the chapter's words", ylim=(0, 1), xlim=(-0.5, len(books) - 0.5))
    mixtures.set(xlabel="chapters, by the book that the model was not told")
    mixtures.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, fontsize=9)
    bound.plot([loss / corpus.present.sum() for loss in losses], color="0.3", linewidth=1)
    bound.set(xlabel="step", ylabel="-ELBO, nats a word")
    wording = mean_of("words")
    for axis, topic in zip("cdef", range(TOPICS), strict=True):
        words = best_words(corpus, 9)[topic]
        share = [100 * float(wording[topic, corpus.vocabulary.index(word)]) for word in words]
        axes[axis].barh(words[::-1], share[::-1], color=colours[topic])
        axes[axis].set(xlabel="% of the topic's words", title=names.get(topic, "no book"))
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, dpi=100)
    plt.close(figure)


def main(picture: Path = PICTURE, steps: int = STEPS) -> tuple[Corpus, Tensor, list[float]]:
    console = Console()
    corpus = read_corpus()
    began = time.perf_counter()
    losses = train(corpus, steps, console)
    seconds = time.perf_counter() - began
    words = int(corpus.present.sum())
    console.print(
        f"{len(corpus.titles)} chapters, {words} words of {len(corpus.vocabulary)}: {seconds:.0f} s"
    )
    mixture = mean_of("shares")
    right, names = matches(corpus, mixture)
    console.print(summary(corpus, names))
    console.print(f"{right} of {len(corpus.titles)} chapters have the topic of their book.")
    perplexity = math.exp(sum(losses[-20:]) / 20 / words)
    unigram = math.exp(-unigram_log_likelihood(corpus) / words)
    console.print(
        f"Perplexity at most {perplexity:.0f}, priors and all; {unigram:.0f} with one distribution for all."
    )
    draw(corpus, mixture, names, losses, picture)
    console.print(f"Mixtures, bound and topics drawn in {picture}")
    return corpus, mixture, losses


if __name__ == "__main__":
    main()
