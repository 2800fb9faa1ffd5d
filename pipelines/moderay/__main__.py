"""`python -m moderay`: the command line."""

from moderay.cli.app import process

process()
