"""How fast, how near to what the machine can do, in how much memory: the figures and the picture of docs/speed.md.

    python bench/speed all            # every section in a process of its own, then the page
    python bench/speed SECTION        # peer, peak, shares, private, curves, memory, drafting or int8
    python bench/speed page           # docs/speed.md and docs/speed.svg from bench/speed/results/*.json

`peer` installs invink 0.1.0 (GPLv3: a peer here, never a dependency) into .venv-peer; the small model beside Gemma is
that of bench/smollm2.py. `peer` and `drafting` read AG News from --data and are left out where it is not there; all
other text is the demo's, made up.
"""

import argparse
import subprocess
import sys
from pathlib import Path

# so that the parts, and the scripts beside this folder, are found
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from plainchant.models.transformers.load import EMBEDDED_MODEL
from speed.common import RESULTS, SMOLLM2, measured
from speed.page import write_page
from speed.peer import peer
from speed.sections import curves, drafting, int8, memory, peak, private, shares

HERE = Path(__file__).resolve().parent
SECTIONS = {f.__name__: f for f in (peer, peak, shares, private, curves, memory, drafting, int8)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("section", choices=[*SECTIONS, "page", "all"])
    data = HERE.parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=data, help="folder with AG News")
    parser.add_argument("--models", nargs="+", default=[EMBEDDED_MODEL, SMOLLM2], help="the first is measured in depth")
    parser.add_argument("--texts", type=int, default=24, help="texts of peer")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each of them")
    parser.add_argument("--steps", type=int, default=16, help="steps of every other figure")
    options = parser.parse_args()
    if options.section == "all":
        # a process for each, so that none finds the memory or the kernels' choices of another
        for name in SECTIONS:
            subprocess.run([sys.executable, HERE, name, *sys.argv[2:]], check=True)
        subprocess.run([sys.executable, HERE.parent / "scale.py"], check=True)
    if options.section in ("all", "page"):
        write_page()
    else:
        measured(SECTIONS[options.section], options, RESULTS)


if __name__ == "__main__":
    main()
