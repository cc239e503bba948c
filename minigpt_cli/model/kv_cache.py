"""The keys and values of the tokens read so far, so that decoding reads each token once.

Shapes: L layers, B batch, K key/value heads, W window, D head_dim.
"""

import torch
from torch import Tensor


class KVCache:
    """A preallocated ring buffer of the last `window` keys and values of every layer.

    When it is full, a new token replaces the oldest. The order of the slots does not matter to
    attention, since the keys already contain their positions. Only models with relative positions
    may read past the window (`GPT.has_relative_positions`).
    """

    def __init__(
        self,
        n_layer: int,
        shape: tuple[int, int, int, int],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Allocates `shape` = (B, K, W, D) for the keys and the values of each layer."""
        self.keys = torch.empty(n_layer, *shape, device=device, dtype=dtype)  # (L, B, K, W, D)
        self.values = torch.empty_like(self.keys)
        self.window = shape[2]
        self.length = 0
        """Number of tokens read so far, which is the position of the next one."""

    def fill(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Stores the keys and values that a layer computed for a prompt, (B, K, T, D), T ≤ W."""
        self.keys[layer, :, :, : k.size(2)] = k.detach()
        self.values[layer, :, :, : v.size(2)] = v.detach()
