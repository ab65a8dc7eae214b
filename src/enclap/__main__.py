"""`python -m enclap` is the command `enclap`."""

from enclap.cli.main import main

main()
