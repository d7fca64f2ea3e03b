"""MAUVE against its authors' implementation, in an environment of its own.

    python bench/mauve_oracle.py --data DIR

Installs mauve-text (GPLv3: an oracle here, never a dependency) into .venv-oracle, embeds pairs of real sets with the
bundled embedder, and compares three values for each pair: the oracle's, ours on the oracle's own bins, and ours with
our own bins. Prints one JSON object a pair.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np

from plainchant.data.embedding import load_embedder
from plainchant.data.tables import read_texts
from plainchant.evaluation.measures import TEXTS_PER_BIN, mauve, mauve_of_bins

ORACLE = """
import json, sys
import numpy as np
from mauve.compute_mauve import compute_mauve
found = []
for path in sys.argv[2:]:
    pair = np.load(path)
    out = compute_mauve(p_features=pair["p"], q_features=pair["q"], num_buckets=int(sys.argv[1]), verbose=False)
    found.append({"mauve": float(out.mauve), "p": out.p_hist.tolist(), "q": out.q_hist.tolist()})
print(json.dumps(found))
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the real text sets")
    parser.add_argument("--texts", type=int, default=2000, help="texts on each side")
    parser.add_argument("--environment", type=Path, default=Path(".venv-oracle"))
    options = parser.parse_args()
    python = options.environment / "bin" / "python"
    if not python.exists():
        venv.create(options.environment, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "mauve-text", "faiss-cpu"], check=True)
    embedder, generator = load_embedder(), np.random.default_rng(0)

    def embedded(name):
        texts = read_texts(options.data / name)
        chosen = generator.permutation(len(texts))[: 2 * options.texts]
        return embedder.encode([texts[row] for row in chosen])

    news, encyclopaedia, reviews = (embedded(f"{name}.jsonl") for name in ("ag_news_test", "dbpedia14", "yelp_test"))
    n = options.texts
    share = [np.concatenate([news[n : n + n - part], encyclopaedia[:part]]) for part in (n // 4, n // 2, 3 * n // 4)]
    pairs = {
        "AG News, AG News (other texts)": (news[:n], news[n : 2 * n]),
        "AG News, a quarter replaced by DBpedia": (news[:n], share[0]),
        "AG News, half replaced by DBpedia": (news[:n], share[1]),
        "AG News, three quarters replaced by DBpedia": (news[:n], share[2]),
        "AG News, DBpedia": (news[:n], encyclopaedia[:n]),
        "AG News, Yelp": (news[:n], reviews[:n]),
        "AG News, the same texts": (news[:n], news[:n]),
    }
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, (p, q) in enumerate(pairs.values()):
            paths.append(Path(folder) / f"{number}.npz")
            np.savez(paths[-1], p=p, q=q)
        bins = str(round(2 * n / TEXTS_PER_BIN))
        done = subprocess.run([python, "-c", ORACLE, bins, *paths], check=True, stdout=subprocess.PIPE, text=True)
    for (name, (p, q)), theirs in zip(pairs.items(), json.loads(done.stdout.splitlines()[-1]), strict=True):
        on_their_bins = mauve_of_bins(np.array(theirs["p"]), np.array(theirs["q"]))
        line = {"oracle": theirs["mauve"], "ours on its bins": on_their_bins, "ours": mauve(p, q)}
        print(json.dumps({"pair": name, "texts": len(p)} | {key: round(value, 4) for key, value in line.items()}))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
