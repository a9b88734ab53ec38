"""Topics of forty chapters: each is put with the others of its book, which the model is not told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch

Load = Callable[[str], ModuleType]


def test_chapters_find_their_books(example: Load, tmp_path: Path) -> None:
    topics = example("topics")
    corpus, mixture, losses = topics.main(tmp_path / "picture.png", steps=150)
    assert (tmp_path / "picture.png").stat().st_size > 20_000
    right, names = topics.matches(corpus, mixture)
    assert right >= 38
    assert set(names.values()) == {"Genesis", "Leviticus", "Proverbs", "Acts"}
    words = dict(zip(names.values(), (topics.best_words(corpus, 9)[each] for each in names), strict=True))
    for name, expected in (
        ("Genesis", "joseph"),
        ("Leviticus", "offering"),
        ("Proverbs", "wise"),
        ("Acts", "paul"),
    ):
        assert expected in words[name]
    assert sum(losses[-10:]) / 10 < -topics.unigram_log_likelihood(corpus)


def test_the_corpus(example: Load) -> None:
    corpus = example("topics").read_corpus()
    assert len(corpus.titles) == 40
    assert corpus.words.shape == corpus.present.shape
    counts = corpus.counts()
    assert counts.sum() == corpus.present.sum()
    assert bool((counts.sum(0) >= 8).all())
    assert bool(((counts > 0).double().mean(0) <= 0.6).all())
    assert torch.equal(counts.sum(-1), corpus.present.sum(0).double())
