"""One self-contained HTML page: tables, ranges, walls of pictures; no network, no script."""
