"""`python -m plainchant`."""

import os

from plainchant.cli.main import main

if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main(prog_name="plainchant")
