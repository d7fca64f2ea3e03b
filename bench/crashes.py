"""Random small runs with crashes: nothing is drawn or written twice, and nobody pays more than was promised.

    python bench/crashes.py [--runs 1000] [--kills 60] [--first 0]

Each run has a random configuration and table, is ended at random points, some of them by a kill -9 of its process, and
goes on to its end (tests/doubles/crashes.py). What must hold is checked after every crash and at the end. The exit
status is 1 if anything was wrong.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from doubles import crashes


def table(title, counts):
    print(f"\n{title}")
    for name, count in counts.most_common():
        print(f"  {count:6}  {name}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=60, help="how many of the runs are ended by kill -9")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    options = parser.parse_args()
    kinds, points, stages, outcomes, wrong = Counter(), Counter(), Counter(), [], []
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch, crashes.quick():
        for number in range(options.runs):
            seed = options.first + number
            found = crashes.run(seed, Path(scratch) / str(seed), kill=number < options.kills)
            outcomes.append(found)
            kinds.update(found.kinds)
            points.update(found.crashes)
            stages.update(found.stages)
            wrong += [f"seed {seed}: {what}" for what in found.wrong]
            for what in found.wrong:
                print(f"seed {seed}: {what}", flush=True)
    close = sum(found.paid > 0.8 for found in outcomes)
    print(f"{options.runs} runs, {points.total()} crashes, {time.perf_counter() - begun:.0f} s")
    released = sum(found.released for found in outcomes)
    print(f"{released} came to a release; in the others no noisy count was large enough")
    print(f"largest payment of a unit: {max(found.paid for found in outcomes):.9f} of what it may ({close} above 0.8)")
    print(f"largest ε by stored payments: {max(found.claimed for found in outcomes):.9f} of what is claimed")
    table("runs with", kinds)
    table("crashes by point", points)
    table("crashes by how far the run was", stages)
    print(f"\n{len(wrong)} violations")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
