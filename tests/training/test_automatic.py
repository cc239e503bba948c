"""`--preset auto`: what is taken for which text, on which machine."""

import pytest

from minigpt_cli.training.automatic import automatic_config

FAST, SLOW = 1e14, 1e9


@pytest.mark.parametrize("tokens", [500, 7_560, 100_000, 1_000_000, 50_000_000])
def test_no_text_is_read_too_often(tokens: int) -> None:
    config, _ = automatic_config(tokens, 65, FAST, {})
    read = config.train.max_iters * config.train.batch_size * config.model.block_size
    assert read / tokens <= 22 or config.train.max_iters == 100
    assert config.model.block_size < max(100, tokens)


def test_longer_texts_get_larger_models_and_less_dropout() -> None:
    configs = [automatic_config(n, 65, FAST, {})[0] for n in (7_560, 100_000, 1_000_000, 10**8)]
    widths = [config.model.n_embd for config in configs]
    assert widths == sorted(set(widths))
    assert configs[0].model.dropout > configs[-1].model.dropout


def test_slow_machine_gets_a_smaller_model_and_fewer_steps() -> None:
    fast, slow = (automatic_config(10**8, 65, flops, {})[0] for flops in (FAST, SLOW))
    assert slow.model.n_embd < fast.model.n_embd
    assert slow.train.max_iters <= fast.train.max_iters


def test_settings_of_ones_own_win() -> None:
    overrides = {"train.max_iters": 7, "model.n_embd": 32, "data.tokenizer": "byte"}
    config, _ = automatic_config(7_560, 256, SLOW, overrides)
    assert (config.train.max_iters, config.model.n_embd) == (7, 32)
    assert config.data.tokenizer == "byte"


def test_reason_is_given_in_numbers() -> None:
    config, why = automatic_config(7_560, 65, FAST, {})
    for part in (f"{config.model.n_layer} layers", "7,560 tokens", "epochs", "10 min 00 s"):
        assert part in why
