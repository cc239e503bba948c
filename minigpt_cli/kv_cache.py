"""Keys and values of the tokens already read, so that decoding reads each token once.

Shapes: B batch, K key/value heads, W window, D head_dim.
"""

import torch
from torch import Tensor


class KVCache:
    """A preallocated ring of the last `window` keys and values of every layer.

    When it is full, a new token takes the place of the oldest. The order of the slots does not
    matter to attention, since positions are already in the keys. Only a family whose positions
    are relative may write past the window (`GPT.slides`).
    """

    def __init__(
        self,
        n_layer: int,
        shape: tuple[int, int, int, int],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Allocates room for `shape` = (B, K, W, D) in each layer."""
        self.window = shape[2]
        self.length = 0
        """Tokens read so far, which is also the position of the next."""
        self._keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(n_layer)]
        self._values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(n_layer)]

    def write(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Stores the keys and values of new tokens, (B, K, T, D).

        An empty cache takes a whole prompt of at most `window` tokens, a started one a token at a
        time. The model calls `advance` once all layers have written.

        Returns:
            All keys and values held, (B, K, min(length + T, window), D) each.
        """
        keys, values, new = self._keys[layer], self._values[layer], k.size(2)
        assert new == 1 or (self.length == 0 and new <= self.window)
        slot = self.length % self.window
        keys[:, :, slot : slot + new] = k
        values[:, :, slot : slot + new] = v
        held = min(self.length + new, self.window)
        return keys[:, :, :held], values[:, :, :held]

    def advance(self, new: int) -> None:
        """Counts `new` tokens as read."""
        self.length += new
