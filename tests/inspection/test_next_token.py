"""The next token's distribution and cuts, computed by hand from the logits."""

from pathlib import Path

import pytest
import torch

from minigpt_cli.generation.sampling import Sampling
from minigpt_cli.inspection.next_token import next_token
from minigpt_cli.runs.checkpoint import Checkpoint, load_checkpoint

TEXT = "The old heron "
CUTS = (Sampling(top_k=3), Sampling(top_p=0.5))


@pytest.fixture(scope="module")
def trained(trained_home: Path) -> Checkpoint:
    return load_checkpoint(trained_home / "runs" / "tiny" / "checkpoint.safetensors")


def ordered(trained: Checkpoint, temperature: float) -> tuple[list[str], list[float]]:
    with torch.no_grad():
        logits = trained.model(torch.tensor([trained.tokenizer.encode(TEXT)]))[0, -1]
    exponentials = (logits.double() / temperature).exp()
    probabilities = (exponentials / exponentials.sum()).tolist()
    ids = sorted(range(len(probabilities)), key=lambda i: -probabilities[i])
    return [trained.tokenizer.decode([i]) for i in ids], [probabilities[i] for i in ids]


def test_probabilities_at_three_temperatures(trained: Checkpoint) -> None:
    found = next_token(trained, TEXT, trained.tokenizer.encode(TEXT), 6, CUTS)
    assert [choice.temperature for choice in found.choices] == [0.5, 1, 2]
    for choice in found.choices:
        tokens, probabilities = ordered(trained, choice.temperature)
        assert list(found.tokens) == tokens[:6]
        assert choice.probabilities == pytest.approx(probabilities[:6], rel=1e-4)


def test_the_answer_does_not_depend_on_the_precision_set_for_generation(
    trained: Checkpoint,
) -> None:
    ids = trained.tokenizer.encode(TEXT)
    expected = next_token(trained, TEXT, ids, 6, CUTS)
    with trained.model.evaluating(torch.bfloat16):
        assert next_token(trained, TEXT, ids, 6, CUTS) == expected
        assert trained.model.compute_dtype == torch.bfloat16


def test_cuts_are_reported_and_not_applied(trained: Checkpoint) -> None:
    found = next_token(trained, TEXT, trained.tokenizer.encode(TEXT), 6, CUTS)
    for choice in found.choices:
        _, probabilities = ordered(trained, choice.temperature)
        least = next(n for n in range(1, 99) if sum(probabilities[:n]) >= 0.5)
        k, p = choice.cuts
        assert (k.setting, k.kept) == ("top-k 3", 3)
        assert k.probability == pytest.approx(sum(probabilities[:3]), rel=1e-4)
        assert (p.setting, p.kept) == ("top-p 0.5", least)
        assert p.probability == pytest.approx(sum(probabilities[:least]), rel=1e-4)
        assert all(choice.probabilities)


def test_a_small_vocabulary_is_listed_whole(trained: Checkpoint) -> None:
    found = next_token(trained, "T", trained.tokenizer.encode("T"), 1000)
    assert len(found.tokens) == trained.tokenizer.vocab_size
    assert sum(found.choices[0].probabilities) == pytest.approx(1)


def test_only_the_window_is_looked_at(trained: Checkpoint, story: str) -> None:
    ids = trained.tokenizer.encode(story[:100])
    whole, end = (next_token(trained, "", part, 5) for part in (ids, ids[-32:]))
    assert whole.choices == end.choices
