"""`python -m moderay`: the command line."""

from moderay.cli.app import main

main()
