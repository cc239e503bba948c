"""Texts, their token ids on disk, and batches of them."""
