"""Self-contained HTML pages: no network, no script."""
