"""llama.cpp, in this process and asked over loopback."""

import json
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen


class Llama:
    """A model that llama.cpp has loaded, in fp32 on one thread.

    Args:
        path: a GGUF file.
        window: how many tokens it may read and write.
    """

    def __init__(self, path: Path, window: int) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.cpuparams.n_threads = window, 1, 1
        params.warmup, params.verbosity = False, -1
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._server = xllamacpp.Server(params)

    def ask(self, what: str, **request: Any) -> dict[str, Any]:
        """One request to llama.cpp's own server."""
        body = json.dumps(request).encode()
        address = f"{self._server.listening_address}/{what}"
        with urlopen(Request(address, body, {"Content-Type": "application/json"})) as reply:
            answer: dict[str, Any] = json.load(reply)
            return answer

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.ask("tokenize", content=text, add_special=False)["tokens"]
        return ids

    def decode(self, ids: list[int]) -> str:
        text: str = self.ask("detokenize", tokens=ids)["content"]
        return text

    def greedy(self, prompt: str, count: int, probabilities: int = 0) -> dict[str, Any]:
        """The most likely continuation: `tokens`, `content`, `stop_type` and what else it says."""
        return self.ask(
            "completion", prompt=prompt, n_predict=count, temperature=0, return_tokens=True,
            cache_prompt=False, n_probs=probabilities,
        )  # fmt: skip
