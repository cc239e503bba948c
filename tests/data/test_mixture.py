"""Several texts with weights: the shares of their windows, and one dataset of all."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from minigpt_cli.config.schema import DataConfig, ModernConfig, TrainConfig
from minigpt_cli.data import text_sample
from minigpt_cli.data.batches import MixedSampler, training_batches
from minigpt_cli.data.dataset import Dataset
from minigpt_cli.data.mixed import MixedDataset
from minigpt_cli.data.mixture import SLOTS, Mixture
from minigpt_cli.data.workspace import Workspace
from minigpt_cli.errors import CorpusError


@pytest.mark.parametrize(
    "weights", [(0.7, 0.3), (1, 1, 1), (1e-6, 1), (5,), (1, 2, 3, 4, 1e-9, 1e-9)]
)
def test_each_text_has_its_share_of_every_period(weights: Sequence[float]) -> None:
    mixture = Mixture(weights, seed=3)
    assert mixture.shares.sum() == SLOTS
    assert mixture.shares.min() >= 1
    exact = np.array(weights) / sum(weights) * SLOTS
    assert np.abs(mixture.shares - exact).max() < 1 + len(weights)
    for period in (0, 1, 1000):
        sources, _ = mixture.at(period * SLOTS + np.arange(SLOTS))
        assert np.bincount(sources, minlength=len(weights)).tolist() == mixture.shares.tolist()


def test_windows_of_a_text_are_numbered_without_gaps() -> None:
    mixture = Mixture((0.6, 0.3, 0.1), seed=0)
    sources, numbers = mixture.at(np.arange(5 * SLOTS))
    for source in range(3):
        found = numbers[sources == source]
        assert found.tolist() == list(range(len(found)))


def test_a_sample_is_a_function_of_its_number_and_the_seed() -> None:
    samples = np.arange(3 * SLOTS)
    whole = Mixture((2, 1), seed=1).at(samples)
    mixture = Mixture((2, 1), seed=1)
    for place in (2500, 7, 1024, 1023):
        source, number = mixture.at(np.array([place]))
        assert (source[0], number[0]) == (whole.sources[place], whole.numbers[place])
    assert not np.array_equal(Mixture((2, 1), seed=2).at(samples).sources, whole.sources)
    first, second = whole.sources[:SLOTS], whole.sources[SLOTS : 2 * SLOTS]
    assert not np.array_equal(first, second)


def sampler(sampling: str = "epochs", parts: Sequence[int] = (1000, 500)) -> MixedSampler:
    """Over tokens that say which text they are of."""
    tokens = np.repeat(np.arange(len(parts), dtype=np.uint16), parts)
    data = DataConfig.model_validate(
        {"corpus": ["a", "b"], "weights": [0.25, 0.75], "sampling": sampling}
    )
    train = TrainConfig(batch_size=16, seed=5)
    found = training_batches(tokens, ModernConfig(block_size=8), data, train, parts)
    assert isinstance(found, MixedSampler)
    return found


@pytest.mark.parametrize("sampling", ["epochs", "random"])
def test_batches_mix_texts_by_weight_and_no_window_crosses_from_one_to_another(
    sampling: str,
) -> None:
    batches = [sampler(sampling).batch(number) for number in range(SLOTS // 16)]
    texts = np.concatenate([x.numpy() for x, _ in batches])
    assert (texts == texts[:, :1]).all()
    assert (np.concatenate([y.numpy() for _, y in batches]) == texts).all()
    assert texts[:, 0].mean() == 0.75
    again = sampler(sampling).batch(40)[0]
    assert (again == batches[40][0]).all()


def test_each_text_has_epochs_of_its_own() -> None:
    mixed = sampler()
    starts = np.concatenate([mixed.starts(number) for number in range(30)])
    for first, last in ((0, 1000), (1000, 1500)):
        own = starts[(starts >= first) & (starts < last)]
        per_epoch = (last - first - 1) // 8 - 1
        assert len(own) > per_epoch or first == 0
        epoch = own[:per_epoch]
        assert len(set(epoch.tolist())) == len(epoch)


def test_a_text_that_is_too_short_is_named() -> None:
    with pytest.raises(CorpusError, match=r"text 2 of data\.corpus has 5 tokens for training"):
        sampler(parts=(1000, 5))


# Prepared

GULLS, BOATS = "The gull sat on the rail.\n" * 40, "Ten boats came in at dawn, laden.\n" * 90


class Home:
    def __init__(self, folder: Path) -> None:
        self.folder, self.notes = folder, list[str]()
        (folder / "gulls.txt").write_text(GULLS)
        (folder / "boats.txt").write_text(BOATS)

    def config(self, **settings: object) -> DataConfig:
        names = [str(self.folder / "gulls.txt"), str(self.folder / "boats.txt")]
        return DataConfig.model_validate({"corpus": names, "weights": [0.7, 0.3], **settings})

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.folder / "data", note=self.notes.append)

    def dataset(self, **settings: object) -> MixedDataset:
        found = self.workspace.dataset(self.config(**settings))
        assert isinstance(found, MixedDataset)
        return found


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.chdir(tmp_path)
    return Home(tmp_path)


class Trained:
    def __init__(self, home: Home, dataset: Dataset, **settings: object) -> None:
        self.data, self.fingerprint = home.config(**settings), dataset.metadata.fingerprint


@pytest.mark.parametrize("kind", ["char", "word", "byte", "bpe"])
def test_each_text_has_a_validation_part_of_its_own(home: Home, kind: str) -> None:
    size = 300 if kind == "bpe" else None
    dataset = home.dataset(tokenizer=kind, vocab_size=size)
    decode = dataset.tokenizer.decode
    cuts = [int(len(text) * 0.9) for text in (GULLS, BOATS)]
    if kind != "word":  # which does not know the halves of a word that is cut
        assert decode(dataset.tokens("train")) == GULLS[: cuts[0]] + BOATS[: cuts[1]]
        assert decode(dataset.tokens("val")) == GULLS[cuts[0] :] + BOATS[cuts[1] :]
    assert sum(dataset.train_parts) == len(dataset.tokens("train"))
    assert dataset.metadata.train_tokens == len(dataset.tokens("train"))
    assert dataset.metadata.val_tokens == len(dataset.tokens("val"))
    assert len(dataset.tokens("all")) == dataset.metadata.tokens
    assert dataset.metadata.characters == len(GULLS) + len(BOATS)


def test_it_is_found_again_and_known_by_its_fingerprint(home: Home) -> None:
    first = home.dataset(tokenizer="bpe", vocab_size=300)
    stamps = [path.stat().st_mtime_ns for path in sorted((home.folder / "data").rglob("*.bin"))]
    again = home.dataset(tokenizer="bpe", vocab_size=300)
    assert again.metadata == first.metadata
    assert stamps == [
        path.stat().st_mtime_ns for path in sorted((home.folder / "data").rglob("*.bin"))
    ]
    settings = {"tokenizer": "bpe", "vocab_size": 300}
    trained = Trained(home, first, **settings)
    assert home.workspace.own_dataset(trained).metadata == first.metadata
    (home.folder / "boats.txt").write_text("other text\n" * 50)
    moved = home.workspace.own_dataset(trained)
    assert moved.metadata == first.metadata
    assert moved.train_parts == first.train_parts
    assert "going on with the text as it was prepared then" in home.notes[0]


def test_a_validation_text_of_its_own_is_read_once(home: Home) -> None:
    (home.folder / "val.txt").write_text("A gull. A boat.\n" * 5)
    dataset = home.dataset(val_corpus=[str(home.folder / "val.txt")])
    assert dataset.tokenizer.decode(dataset.tokens("val")) == "A gull. A boat.\n" * 5
    assert dataset.tokenizer.decode(dataset.tokens("train")) == GULLS + BOATS


def test_bpe_learns_from_a_sample_of_all_texts(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_sample, "BLOCK", 100)
    settings = {"tokenizer": "bpe", "vocab_size": 300}
    whole, sampled = home.dataset(**settings), home.dataset(**settings, bpe_sample=500)
    assert sampled.metadata.fingerprint != whole.metadata.fingerprint
    assert sampled.tokenizer.token_bytes != whole.tokenizer.token_bytes
    found = b"".join(sampled.tokenizer.token_bytes)
    assert b"gull" in found
    assert b"boats" in found


def test_weights_are_not_part_of_the_text(home: Home) -> None:
    one = home.dataset()
    other = home.dataset(weights=[1.0, 1.0])
    assert one.metadata.fingerprint == other.metadata.fingerprint
