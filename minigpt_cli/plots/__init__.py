"""Matplotlib figures of runs and models."""
