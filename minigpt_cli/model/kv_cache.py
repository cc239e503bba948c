"""Keys and values of the tokens already read, so that decoding reads each token once.

Shapes: L layers, B batch, K key/value heads, W window, D head_dim.
"""

import torch
from torch import Tensor


class KVCache:
    """A ring of the last `window` keys and values of every layer, preallocated.

    When it is full, a new token takes the place of the oldest. The order of the slots does not
    matter to attention, since positions are already in the keys. Only a family whose positions are
    relative may read past the window (`GPT.has_relative_positions`).

    Kept in fp32: on a CPU attention of one query is eight times as fast as in bf16.
    """

    def __init__(
        self, n_layer: int, shape: tuple[int, int, int, int], device: torch.device
    ) -> None:
        """Allocates room for `shape` = (B, K, W, D) in each layer."""
        self.keys = torch.zeros(n_layer, *shape, device=device)  # (L, B, K, W, D)
        self.values = torch.zeros_like(self.keys)
        self.window = shape[2]
        self.length = 0
        """Tokens read so far, which is also the position of the next."""

    def fill(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Stores a layer's keys and values of a prompt, (B, K, T, D) each, T ≤ W."""
        self.keys[layer, :, :, : k.size(2)] = k.detach()
        self.values[layer, :, :, : v.size(2)] = v.detach()
