"""llama.cpp writes: `python -m benchmarks.peers.write_llama_cpp FILE.gguf TOKENS THREADS`.

Through the low-level interface of `llama-cpp-python`: all texts advance in one `llama_decode`, and
NumPy picks the most likely tokens from the logits, which costs less than the library's samplers.
"""

import ctypes
import sys
import time
from typing import Any

from benchmarks.turns import Turn, serve

WINDOW = 256


class Writer:
    """A context for some number of texts side by side.

    Args:
        model: from `llama_model_load_from_file`.
        texts: how many.
        threads: for the computation.
    """

    def __init__(self, model: Any, texts: int, threads: int) -> None:
        import llama_cpp

        self.lib: Any = llama_cpp
        self.texts = texts
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max = WINDOW * texts, texts
        settings.n_batch = settings.n_ubatch = max(texts, 32)
        settings.n_threads = settings.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(model, settings)
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        self.batch = llama_cpp.llama_batch_init(texts, 0, 1)
        self.batch.n_tokens = texts
        for i in range(texts):
            self.batch.n_seq_id[i], self.batch.seq_id[i][0], self.batch.logits[i] = 1, i, 1

    def write(self, prompts: list[int], tokens: int) -> list[list[int]]:
        """The likeliest continuations of one-token prompts."""
        import numpy as np

        lib, batch = self.lib, self.batch
        lib.llama_memory_clear(lib.llama_get_memory(self.context), True)
        shape = (self.texts, self.vocab)
        written = np.empty((tokens, self.texts), dtype=np.int32)
        inputs = np.ctypeslib.as_array(batch.token, (self.texts,))
        positions = np.ctypeslib.as_array(batch.pos, (self.texts,))
        inputs[:] = prompts
        for i in range(tokens):
            positions[:] = i
            if lib.llama_decode(self.context, batch):
                raise RuntimeError("llama_decode failed")
            logits = lib.llama_get_logits(self.context)
            inputs[:] = written[i] = np.ctypeslib.as_array(logits, shape).argmax(-1)
        texts: list[list[int]] = written.T.tolist()
        return texts


def prepare() -> tuple[str, Turn]:
    """Opens the file."""
    import llama_cpp

    path, tokens, threads = sys.argv[1:]
    callback = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p())
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(
        path.encode(), llama_cpp.llama_model_default_params()
    )
    if not model:
        raise RuntimeError(f"llama.cpp cannot open {path}")
    writers: dict[int, Writer] = {}

    def turn(request: dict[str, Any], _kept: object = callback) -> dict[str, Any]:
        prompts = request["prompts"]
        if len(prompts) not in writers:
            writers[len(prompts)] = Writer(model, len(prompts), int(threads))
        started = time.perf_counter()
        written = writers[len(prompts)].write(prompts, int(tokens))
        return {"seconds": time.perf_counter() - started, "tokens": written}

    system = llama_cpp.llama_print_system_info().decode()
    fast = [name for name in ("AVX512_BF16", "AMX_INT8") if f"{name} = 1" in system]
    return f"llama-cpp-python {llama_cpp.__version__} ({', '.join(fast) or 'no bf16'})", turn


if __name__ == "__main__":
    serve(prepare)
