"""The picture of docs/how-it-works.md: candidates, records, and which candidates a noisy vote chooses.

    python bench/votes_picture.py docs/votes.svg

Made-up points in a plane stand for texts. The votes are counted and chosen by the code of a run.
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from plainchant.config import SynthesisConfig
from plainchant.data.nearest import nearest_points
from plainchant.planning import make_plan
from plainchant.privacy.histograms import VOTE_GRID, Ballot, count_votes, noise_sigma, noisy_votes
from plainchant.randomness import SeededRandomness
from plainchant.run.choosing import Tally, choose

RECORDS, CANDIDATES, RELEASED, SPREAD, EPSILON = 300, 600, 40, 16, 1.0
SEED = 3


def points():
    """Records around three topics, and candidates of a model that likes other things too: float32 [n, 2], [m, 2]."""
    generator = np.random.default_rng(SEED)
    topics = np.array([[-1.2, 0.9], [0.1, -1.0], [1.3, 0.6]])
    records = np.repeat(topics, RECORDS // 3, axis=0) + 0.28 * generator.normal(size=(RECORDS, 2))
    liked = np.array([[0.0, 0.2], [1.2, -1.1], [-1.3, -0.7], [0.2, 1.5]])
    habits = np.repeat(liked, CANDIDATES // 6, axis=0) + 0.45 * generator.normal(size=(4 * (CANDIDATES // 6), 2))
    others = generator.uniform(-2.2, 2.2, size=(CANDIDATES - len(habits), 2))
    return records.astype(np.float32), np.concatenate([habits, others]).astype(np.float32)


def winners(records, candidates, spread):
    """The candidates that one vote at `EPSILON` chooses, each vote spread over so many."""
    rho = make_plan(SynthesisConfig(method="private-evolution", epsilon=EPSILON)).rho_vote
    ballot = Ballot((np.arange(len(candidates)),), (spread,))
    counts = count_votes(
        np.zeros(len(records), dtype=np.int64),
        lambda units, own, count: nearest_points(records[units], candidates[own], count),
        ballot,
    )
    votes, every = noisy_votes(counts, rho, SeededRandomness(SEED)), np.arange(len(candidates))
    tally = Tally(np.zeros_like(every), every, votes, VOTE_GRID * noise_sigma(rho), every)
    return [place for _, place in choose(tally, candidates, np.array([RELEASED]), "highest")]


def panels():
    """(title, chosen candidates) of each panel."""
    records, candidates = points()
    some = np.random.default_rng(SEED).permutation(len(candidates))[:RELEASED].tolist()
    return [
        ("no vote: some candidates", some),
        ("each record votes for one", winners(records, candidates, 1)),
        (f"each vote spread over {SPREAD}", winners(records, candidates, SPREAD)),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    # the same points make the same file; hundreds of them are smaller as pixels
    matplotlib.rcParams["svg.hashsalt"] = "votes"
    records, candidates = points()
    figure = Figure((9, 3.5), layout="constrained")
    shown = figure.subplots(1, 3, sharex=True, sharey=True)
    for axes, (title, chosen) in zip(shown, panels(), strict=True):
        axes.plot(
            *candidates.T, ".", markersize=3, markeredgewidth=0, color="#b5b5b5", label="candidates", rasterized=True
        )
        axes.plot(*records.T, "x", markersize=3, markeredgewidth=0.5, color="#1d3557", label="records", rasterized=True)
        axes.plot(
            *candidates[chosen].T, "o", markersize=7, fillstyle="none", markeredgewidth=1.1, color="#9e2a2b",
            label="released",
        )  # fmt: skip
        axes.set_title(title, fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_aspect("equal")
    figure.legend(*shown[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(options.file, metadata={"Date": None} if options.file.suffix == ".svg" else None, dpi=220)


if __name__ == "__main__":
    main()
