"""`python -m automed`."""

from automed.cli import main

main()
