"""`python -m plainchant`, and what the installed command calls."""

import os

from plainchant.cli import interrupts


def entry() -> None:
    """The command line, with Ctrl-C taken care of before anything slow is imported."""
    interrupts.install()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from plainchant.cli.main import main

    main(prog_name="plainchant")


if __name__ == "__main__":
    entry()
