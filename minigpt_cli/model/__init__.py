"""The GPT and what it computes with."""
