"""The `Trainer` of `transformers` with a GPT-2: `… train_transformers fp32|bf16`.

The trainer's loop runs in a thread of its own and waits at every step for its turn.
"""

import queue
import sys
import tempfile
import threading
import time
import warnings
from typing import Any

from benchmarks.turns import Turn, serve

MANY_STEPS = 10_000


def trainer(precision: str, callback: Any, folder: str) -> Any:
    """A GPT-2 of the baby GPT's size, its fused attention and its plain AdamW."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    config = GPT2Config(
        vocab_size=65, n_positions=256, n_embd=384, n_layer=6, n_head=6, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0, activation_function="gelu", bos_token_id=0, eos_token_id=0,
        use_cache=False,
    )  # fmt: skip
    ids = torch.randint(65, (16 * 64, 256))
    arguments = TrainingArguments(
        output_dir=folder, max_steps=MANY_STEPS, per_device_train_batch_size=16, use_cpu=True,
        bf16=precision == "bf16", learning_rate=1e-3, report_to=[], save_strategy="no",
        disable_tqdm=True, logging_strategy="no", dataloader_drop_last=True, max_grad_norm=0.0,
    )  # fmt: skip
    data: Any = [{"input_ids": row, "labels": row} for row in ids]
    model = GPT2LMHeadModel(config)
    return Trainer(model=model, args=arguments, train_dataset=data, callbacks=[callback])


def prepare() -> tuple[str, Turn]:
    """Starts the loop."""
    import accelerate  # the trainer needs it
    import torch
    import transformers

    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    requests: queue.Queue[None] = queue.Queue()
    answers: queue.Queue[float | BaseException] = queue.Queue()

    class InTurn(transformers.TrainerCallback):
        """Times a step from the end of the wait for its turn."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            requests.get()
            self.started = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            answers.put(time.perf_counter() - self.started)

    def loop() -> None:
        try:
            with tempfile.TemporaryDirectory() as folder:
                trainer(sys.argv[1], InTurn(), folder).train()
        except BaseException as error:
            answers.put(error)

    threading.Thread(target=loop, daemon=True).start()

    def turn(_request: dict[str, Any]) -> dict[str, Any]:
        requests.put(None)
        answer = answers.get()
        if isinstance(answer, BaseException):
            raise answer
        return {"seconds": answer}

    return f"transformers {transformers.__version__}, accelerate {accelerate.__version__}", turn


if __name__ == "__main__":
    serve(prepare)
