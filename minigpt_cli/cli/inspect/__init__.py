"""The views of `minigpt inspect`, one module each: options, tables, pictures and JSON."""
