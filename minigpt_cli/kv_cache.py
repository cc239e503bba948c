"""Keys and values of the tokens already read, so that decoding reads each token once.

Shapes: B batch, K key/value heads, W window, D head_dim.
"""

import torch
from torch import Tensor


class LayerCache:
    """One layer's ring of the last `window` keys and values, preallocated.

    When it is full, a new token takes the place of the oldest. The order of the slots does not
    matter to attention, since positions are already in the keys.
    """

    def __init__(
        self, shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device
    ) -> None:
        """Allocates room for `shape` = (B, K, W, D)."""
        self._window, self.length = shape[2], 0
        self._keys = torch.zeros(shape, dtype=dtype, device=device)
        self._values = torch.zeros(shape, dtype=dtype, device=device)

    def write(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Stores the keys and values of new tokens, (B, K, T, D).

        An empty cache takes a whole prompt of at most `window` tokens, a started one a token at a
        time.

        Returns:
            All keys and values held, (B, K, min(length + T, window), D) each.
        """
        new = k.size(2)
        assert new == 1 or (self.length == 0 and new <= self._window)
        slot = self.length % self._window
        self._keys[:, :, slot : slot + new] = k
        self._values[:, :, slot : slot + new] = v
        self.length += new
        held = min(self.length, self._window)
        return self._keys[:, :, :held], self._values[:, :, :held]


class KVCache:
    """The caches of all layers, and how far the text has been read.

    Only a family whose positions are relative may read past the window (`GPT.slides`).
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
        self.layers = [LayerCache(shape, dtype, device) for _ in range(n_layer)]

    @property
    def length(self) -> int:
        """Tokens read so far by all layers, which is also the position of the next."""
        return self.layers[-1].length
