"""Formats of text files: a reader each, behind one small protocol."""
