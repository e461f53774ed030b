"""`python -m palate`: the same as the command `palate`."""

from palate.cli import main

main()
