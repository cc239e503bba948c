"""Text to token ids and back: characters, words, bytes, or byte pairs."""
