"""One script per claim in the README. Each measures what it compares in the same run."""
