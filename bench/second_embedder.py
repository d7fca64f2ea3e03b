"""A second embedder for judging, which no run uses: static word vectors, averaged over a text.

The vectors come with the package wordllama (MIT), which is unpacked at first use.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

RESULTS = Path(__file__).parent / "results"
PACKAGE = "wordllama==0.4.0.post1"
# Texts per pass; bounds the memory.
BLOCK = 4096


class StaticEmbedder:
    """Texts as averages of the vectors of their tokens, of length 1; the same interface as `data.embedding`."""

    name = "wordllama-l2-supercat-256"

    def __init__(self):
        folder = _unpacked()
        (weights,) = load_file(folder / "weights" / "l2_supercat_256.safetensors").values()
        self._vectors = np.asarray(weights, dtype=np.float32)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizers" / "l2_supercat_tokenizer_config.json"))
        self._tokenizer.no_padding()
        self.dimension = self._vectors.shape[1]

    def encode(self, texts, *, alone=False, progress=None):
        """Unit vectors, float32 [n, 256]; a text's vector depends on that text alone."""
        means = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for start in range(0, len(texts), BLOCK):
            block = self._tokenizer.encode_batch(list(texts[start : start + BLOCK]), add_special_tokens=False)
            for place, encoded in enumerate(block, start=start):
                if encoded.ids:
                    means[place] = self._vectors[encoded.ids].mean(axis=0)
            if progress:
                progress(min(1.0, (start + BLOCK) / len(texts)))
        return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)


def _unpacked():
    target = RESULTS / "wordllama"
    if not target.exists():
        RESULTS.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=RESULTS) as scratch:
            install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", scratch]
            subprocess.run([*install, PACKAGE], check=True)
            # its data alone, none of its code
            for part in ("weights", "tokenizers"):
                shutil.copytree(Path(scratch) / "wordllama" / part, target / part)
    return target
