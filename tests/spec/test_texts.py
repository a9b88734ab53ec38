"""Every example of the two specification texts, with the output that the text states."""

from __future__ import annotations

from pathlib import Path

import pytest

import sumout
from test_docs import READER

TEXTS = sorted(Path(__file__).parent.glob("*.md"))


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.stem)
def test_examples_give_what_the_text_states(text: Path) -> None:
    sumout.set_rng_seed(0)
    with sumout.get_param_store().scope():
        for example in READER.parse(text).examples():
            example.evaluate()
