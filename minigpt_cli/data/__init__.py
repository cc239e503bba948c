"""Text on disk becomes token ids on disk, and batches of them."""
