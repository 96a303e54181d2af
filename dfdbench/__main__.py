"""`python -m dfdbench`: the command line, for torchrun, which starts modules."""

from dfdbench.cli import main

main()
