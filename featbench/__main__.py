"""`python -m featbench` is the same as `featbench`."""

from featbench.cli.main import main

if __name__ == "__main__":
    main()
