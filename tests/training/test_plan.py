"""Plans for machines that are not here, and batches that fit a given amount of memory."""

from functools import partial
from pathlib import Path

import pytest
import torch

from minigpt_cli.config.loading import load_run_config
from minigpt_cli.errors import ConfigError
from minigpt_cli.model.flops import forward_flops_per_token
from minigpt_cli.training.automatic import AUTO
from minigpt_cli.training.planning.accelerators import ACCELERATORS, accelerator
from minigpt_cli.training.planning.fitting import fit_batch, memory_here
from minigpt_cli.training.planning.memory import Memory
from minigpt_cli.training.planning.plan import Machines, Plan, plan, planned
from minigpt_cli.training.setup import TrainRequest

VOCAB = 50_257
BILLIONS: dict[str, object] = {
    "model.n_layer": 48, "model.n_head": 32, "model.n_embd": 4096, "train.batch_size": 1,
    "train.grad_accum_steps": 1024,
}  # fmt: skip


def of(gpus: int, gpu: str = "h100", **settings: object) -> Plan:
    changed = {name.replace("__", "."): value for name, value in settings.items()}
    return plan(load_run_config("gpt2", changed), VOCAB, Machines(gpus, accelerator(gpu)))


def test_time_is_arithmetic_by_the_stated_share_of_the_peak() -> None:
    config = load_run_config("gpt2")
    flops = 3 * forward_flops_per_token(config.model, VOCAB) * 12 * 40 * 1024
    found = of(1)
    assert found.seconds_per_step == pytest.approx(flops / (0.4 * 989e12))
    assert found.seconds == pytest.approx(100_000 * found.seconds_per_step)
    assert found.flops == pytest.approx(100_000 * flops)
    assert found.tokens_per_second == pytest.approx(491_520 / found.seconds_per_step)


def test_run_is_compared_with_chinchilla() -> None:
    found = of(1)
    assert found.parameters == 124_439_808
    assert found.compute_optimal_tokens == 20 * 124_439_808
    assert (found.tokens, found.token_bytes) == (49_152_000_000, 98_304_000_000)
    assert not found.advice
    (advice,) = of(1, train__max_iters=100).advice
    assert "train.max_iters to 5,063" in advice  # 20 tokens for each of 124 M, 491,520 a step


def test_replicas_send_twice_the_gradients_around_the_ring() -> None:
    found = of(8)
    assert found.strategy == "ddp"
    assert found.traffic.bytes == 2 * 7 * 4 * 124_439_808 // 8
    assert found.traffic.seconds == pytest.approx(found.traffic.bytes / 450e9)
    assert of(16).traffic.seconds == pytest.approx(of(16).traffic.bytes / 50e9)  # two machines


def test_model_too_large_for_a_replica_is_sharded() -> None:
    config = load_run_config("gpt2", BILLIONS)
    found = plan(config, VOCAB, Machines(64, accelerator("h100")))
    assert found.strategy == "fsdp"
    assert found.fits
    assert found.parameters > 9e9
    # bf16 weights twice and fp32 gradients once, in each of 16 passes.
    assert found.traffic.bytes == pytest.approx(16 * 63 / 64 * 8 * found.parameters)
    alone = plan(config, VOCAB, Machines(1, accelerator("h100")))
    assert not alone.fits
    assert "more GPUs" in alone.advice[0]


def test_advice_on_memory_fits_when_it_is_taken() -> None:
    found = of(1, "l4", train__batch_size=32, train__grad_accum_steps=15)
    assert not found.fits
    assert "set train.batch_size=16, train.grad_accum_steps=30" in found.advice[0]
    assert of(1, "l4", train__batch_size=16, train__grad_accum_steps=30).fits


def test_uneven_shares_and_waiting_are_said() -> None:
    advice = " ".join(of(64).advice)
    assert "480 sequences a step do not divide among 64 GPUs" in advice
    assert "waits for the network" in advice


def test_more_gpus_than_sequences_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"480 sequences per step cannot be shared among 481"):
        of(481)


def test_every_accelerator_says_where_its_numbers_are_from() -> None:
    for name, device in ACCELERATORS.items():
        assert device.name == name == name.lower()
        assert device.source.startswith("NVIDIA")
    with pytest.raises(ConfigError, match="did you mean h100"):
        accelerator("h10")


def test_vocabulary_is_taken_from_the_settings_where_they_know_it(tmp_path: Path) -> None:
    machines = Machines(1, accelerator("h100"))
    for settings, vocab_size in (
        ({"data.tokenizer": "byte"}, 256),
        ({"data.tokenizer": "bpe"}, 1024),
        ({"data.tokenizer": "bpe", "data.vocab_size": 5000}, 5000),
    ):
        request = TrainRequest("tiny", {"data.corpus": "nowhere.txt", **settings})
        assert planned(request, machines)[1].vocab_size == vocab_size
    text = tmp_path / "text.txt"
    text.write_text("abcdefgh" * 200)
    request = TrainRequest("tiny", {"data.corpus": str(text)})
    assert planned(request, machines)[1].vocab_size == 8


def test_sizes_beyond_any_machine_are_planned_or_refused_at_once() -> None:
    most = 2**31 - 1
    for settings in (
        {"model.n_layer": most, "train.batch_size": most, "train.grad_accum_steps": most},
        {"model.block_size": most, "train.max_iters": most},
    ):
        found = plan(load_run_config("gpt2", settings), VOCAB, Machines(8, accelerator("h100")))
        assert not found.fits
        assert "not even one sequence at a time" in found.advice[0]
    config = load_run_config("gpt2", {"model.n_embd": 12 * 2**27})
    with pytest.raises(ConfigError, match="too large to count"):
        plan(config, VOCAB, Machines(8, accelerator("h100")))


def test_automatic_preset_cannot_plan_for_others() -> None:
    with pytest.raises(ConfigError, match="name another preset"):
        planned(TrainRequest(AUTO), Machines(1, accelerator("h100")))


# --max-memory


def test_batch_is_split_into_the_fewest_passes_that_fit() -> None:
    config = load_run_config("medium", {"train.device": "cpu", "train.precision": "fp32"})

    def at(size: int) -> Memory:
        return memory_here(config, 65, size)

    for size in (8, 4, 2, 1):
        fitted, note = fit_batch(config, at(size).peak, at)
        assert fitted.train.batch_size == size
        assert fitted.train.batch_size * fitted.train.grad_accum_steps == 8
        assert "expected" in note
        assert ("8 → " in note) == (size < 8)
        assert memory_here(fitted, 65).peak <= at(size).peak
    with pytest.raises(ConfigError, match="one sequence at a time takes"):
        fit_batch(config, at(1).peak - 1, at)


def test_note_says_honestly_what_differs() -> None:
    same = {"train.device": "cpu", "train.precision": "fp32"}
    for preset, changes, words in (
        ("small", {}, "equal but for rounding)"),
        ("medium", {}, "other dropout masks"),
        ("small", {"data.sampling": "random"}, "other sequences"),
    ):
        config = load_run_config(preset, {**same, **changes})
        low = memory_here(config, 65, 1).peak
        _, note = fit_batch(config, low, partial(memory_here, config, 65))
        assert words in note


def test_plan_asks_no_accelerator_and_reads_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object) -> None:
        raise AssertionError("this machine was asked")

    for name in ("is_available", "device_count", "is_bf16_supported"):
        monkeypatch.setattr(torch.cuda, name, asked)
    request = TrainRequest("gpt2", {"data.corpus": "nowhere.txt", "train.device": "cuda"})
    assert planned(request, Machines(64, accelerator("h100")))[1].gpus == 64
