"""Generation speed against other programs: `python -m benchmarks.generate_peers`.

The baby GPT (6 layers, 6 heads, 384 wide, block 256, modern), the same weights for all, written by
minigpt's own exports. Everyone writes 240 tokens after a prompt of one, the most likely token each
time, one text and 32 texts side by side. That is within the window, so nobody has to slide. Each
contender is a process of its own; they take turns, and the first turn of each is not counted.

`transformers` comes with the extra `bench`, and GGUF files need the extra `interop`. llama.cpp and
CTranslate2 may live in another environment, which `--peers-python` names. llama.cpp should be built
where it runs, so that it uses what the processor has:

    python -m venv peers
    CMAKE_ARGS="-DGGML_NATIVE=ON" peers/bin/pip install --no-binary llama-cpp-python \
        llama-cpp-python
    peers/bin/pip install ctranslate2 transformers torch
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import torch

from benchmarks.machine import keep, markdown
from benchmarks.turns import Worker, interpreter, ratio, versions
from minigpt_cli.config.schema import DataConfig, ModernConfig
from minigpt_cli.interop.gguf_export import export_gguf
from minigpt_cli.interop.hf_export import export_hf
from minigpt_cli.model.gpt import GPT
from minigpt_cli.runs.checkpoint import Checkpoint, checkpoint_file, load_checkpoint
from minigpt_cli.runs.checkpoint_header import CheckpointMetadata
from minigpt_cli.tokenizer.char import CharTokenizer

TOKENS, MANY = 240, 32
REFERENCE, OURS, LLAMA = "minigpt, fp32", "minigpt, bf16", "llama.cpp, bf16"
FILES = {"checkpoint": "model.safetensors", "hf": "hf", "bf16": "bf16.gguf", "q8_0": "q8_0.gguf"}


def random_checkpoint() -> Checkpoint:
    """The baby GPT with weights so large that its text does not repeat."""
    tokenizer = CharTokenizer(map(chr, range(32, 97)))
    torch.manual_seed(0)
    gpt = GPT(ModernConfig(), tokenizer.vocab_size).initialize().eval()
    for name, parameter in gpt.named_parameters():
        if parameter.dim() == 2:
            outer = "embedding" in name or name.startswith("head")
            torch.nn.init.normal_(parameter, std=0.5 if outer else parameter.size(1) ** -0.5)
    metadata = CheckpointMetadata(
        version="0", model=gpt.config, vocab_size=gpt.vocab_size, tokenizer=tokenizer.to_json(),
        data=DataConfig(), corpus="none", fingerprint="0", step=0, train_loss=None, val_loss=None,
        bits_per_byte=None,
    )  # fmt: skip
    return Checkpoint(gpt, tokenizer, metadata)


def export(checkpoint: Checkpoint, folder: Path) -> dict[str, Path]:
    """Writes the weights in everyone's format."""
    paths = {kind: folder / name for kind, name in FILES.items()}
    checkpoint_file(paths["checkpoint"], checkpoint.model, checkpoint.metadata).write()
    export_hf(checkpoint, paths["hf"])
    export_gguf(checkpoint, paths["bf16"], "bf16")
    export_gguf(checkpoint, paths["q8_0"], "q8_0")
    return paths


def contenders(paths: dict[str, Path], peers_python: str, threads: int) -> Iterator[Worker]:
    """Starts them, one after another."""
    here = sys.executable
    for dtype in ("fp32", "bf16", "int8"):
        for decoder, how in (("compiled", ""), ("plain", ", without a C compiler")):
            arguments = [paths["checkpoint"], dtype, TOKENS, decoder]
            yield Worker(f"minigpt, {dtype}{how}", "write_minigpt", arguments, here, threads)
    for dtype in ("bf16", "q8_0"):
        arguments = [paths[dtype], TOKENS, threads]
        name = f"llama.cpp, {dtype.upper() if dtype == 'q8_0' else dtype}"
        yield Worker(name, "write_llama_cpp", arguments, peers_python, threads)
    for dtype in ("fp32", "bf16"):
        for cache in ("dynamic", "static", "compiled"):
            how = f"{cache} cache" if cache != "compiled" else "static cache, compiled"
            arguments = [paths["hf"], dtype, TOKENS, cache]
            name = f"transformers, {dtype}, {how}"
            yield Worker(name, "write_transformers", arguments, here, threads)
    for dtype in ("float32", "int8"):
        arguments = [paths["hf"], dtype, TOKENS, threads]
        name = f"CTranslate2, {dtype}"
        yield Worker(name, "write_ctranslate2", arguments, peers_python, threads)


def agreement(worker: Worker, reference: Worker, kind: str) -> str:
    """How many tokens agree before the first that does not, the median over texts."""
    if worker is reference or kind not in worker.turns or kind not in reference.turns:
        return "-"
    mine, theirs = (found.turns[kind][0]["tokens"] for found in (worker, reference))
    equal = [
        next((i for i, pair in enumerate(zip(*texts, strict=True)) if pair[0] != pair[1]), TOKENS)
        for texts in zip(mine, theirs, strict=True)
    ]
    return f"{statistics.median(equal):.0f}"


def table(workers: list[Worker], texts: int) -> str:
    """Medians for one number of texts side by side."""
    kind = str(texts)
    seconds = {worker.name: worker.median(kind, "seconds") for worker in workers}
    speeds = {name: texts * TOKENS / took for name, took in seconds.items() if took}
    reference = next(worker for worker in workers if worker.name == REFERENCE)
    rows = []
    for worker in workers:
        speed = speeds.get(worker.name)
        shown = f"{speed:,.0f}" if speed else "-"
        ratios = [ratio(speed, speeds.get(name)) for name in (LLAMA, OURS)]
        rows.append([worker.name, shown, *ratios, agreement(worker, reference, kind)])
    title = "1 text" if texts == 1 else f"{texts} texts"
    columns = [title, "tokens/s", f"of {LLAMA}", f"of {OURS}", "tokens equal to minigpt's in fp32"]
    return markdown(columns, rows)


def main() -> None:
    """Runs the contenders in turn and keeps the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoint", type=Path, help="a model to use instead of random weights")
    parser.add_argument(
        "--peers-python", type=interpreter, default=sys.executable, help="where llama.cpp is"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        given = options.checkpoint
        paths = export(load_checkpoint(given) if given else random_checkpoint(), Path(folder))
        workers = []
        for worker in contenders(paths, options.peers_python, options.threads):
            workers.append(running.enter_context(worker))
            for texts in (1, MANY):  # in a turn of its own, since it may compile
                worker.take_turn(str(texts), {"prompts": [*range(texts)]}, timed=False)
        for _ in range(options.rounds):
            for texts in (1, MANY):
                for worker in workers:
                    worker.take_turn(str(texts), {"prompts": [*range(texts)]})
    tables = "\n\n".join(table(workers, texts) for texts in (1, MANY))
    text = f"{tables}\n\n{options.threads} threads each, {TOKENS} tokens. {versions(workers)}"
    seconds = {
        worker.name: {
            kind: [turn["seconds"] for turn in turns] for kind, turns in worker.turns.items()
        }
        for worker in workers
    }
    keep("generate_peers", text, {"threads": options.threads, "seconds": seconds})


if __name__ == "__main__":
    main()
