"""Training and writing on an NVIDIA GPU, against the same on the CPU."""

import pytest
import torch

from minigpt_cli.data.dataset import Dataset
from minigpt_cli.generation.sampling import Sampling
from minigpt_cli.generation.tokens import GenerationRequest, generate_tokens
from minigpt_cli.model.gpt import GPT
from minigpt_cli.runs.checkpoint import load_checkpoint
from minigpt_cli.runs.folder import RunFolder
from minigpt_cli.training.trainer import Trainer
from tests.helpers.training import Watcher, resumed, rows, small_config, train, train_until

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("no_measuring")]
NO_DROPOUT = "model.dropout=0"  # another device draws other numbers


@pytest.fixture
def device() -> str:
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    return "cuda"


def losses(trainer: Trainer) -> list[float]:
    return [row["loss"] for row in rows(trainer.folder) if row["type"] == "step"]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 0.03)])
def test_losses_are_those_of_the_cpu(
    device: str, dataset: Dataset, optimizer: str, precision: str, tolerance: float
) -> None:
    settings = (f"optimizer.name={optimizer}", NO_DROPOUT)
    here = train(small_config(*settings), dataset)
    there = train(
        small_config(*settings, f"train.device={device}", f"train.precision={precision}"), dataset
    )
    assert losses(there)
    assert losses(there) == pytest.approx(losses(here), abs=tolerance)


def test_a_stopped_run_continues(device: str, dataset: Dataset, run: RunFolder) -> None:
    config = small_config(f"train.device={device}")
    whole = train(config, dataset)
    train_until(6, "asked", config, dataset, run)
    again = resumed(config, dataset, run)
    again.fit(Watcher())
    # Dropout's random numbers are restored too; sums on a GPU may come in another order.
    assert losses(again) == pytest.approx(losses(whole), abs=1e-4)


def test_texts_are_those_of_the_cpu(device: str, dataset: Dataset) -> None:
    model = load_checkpoint(train(small_config(), dataset).folder.checkpoint).model
    request = GenerationRequest([[1, 2, 3], [4]], 20, Sampling(temperature=0))

    def written(model: GPT) -> list[list[int | None]]:
        return [step.tokens for step in generate_tokens(model, request)]

    here = written(model)
    assert written(model.to(device)) == here
