"""Prompts in, text out: decoding, sampling, and the loop around them."""
