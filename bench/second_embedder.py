"""A second embedder for judging, which no run uses: static word vectors, averaged over a text.

The vectors come with the package wordllama (MIT), which is unpacked at first use.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from plainchant.arrays import Float32Array

RESULTS = Path(__file__).parent / "results"
PACKAGE = "wordllama==0.4.0.post1"
WEIGHTS, TOKENIZER = "l2_supercat_256.safetensors", "l2_supercat_tokenizer_config.json"
# Texts per pass; bounds the memory.
BLOCK = 4096


class StaticEmbedder:
    """Texts as averages of the vectors of their tokens, of length 1; the same interface as `data.embedding`."""

    name = "wordllama-l2-supercat-256"

    def __init__(self) -> None:
        folder = _unpacked()
        (weights,) = load_file(folder / WEIGHTS).values()
        self._vectors = np.asarray(weights, dtype=np.float32)
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.no_padding()
        self.dimension = self._vectors.shape[1]

    def encode(
        self, texts: Sequence[str], *, alone: bool = False, progress: Callable[[float], None] | None = None
    ) -> Float32Array:
        """Unit vectors, float32 [n, 256]; a text's vector depends on that text alone."""
        means = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for start in range(0, len(texts), BLOCK):
            block = self._tokenizer.encode_batch(list(texts[start : start + BLOCK]), add_special_tokens=False)
            for place, encoded in enumerate(block, start=start):
                if encoded.ids:
                    means[place] = self._vectors[encoded.ids].mean(axis=0)
            if progress:
                progress(min(1.0, (start + BLOCK) / len(texts)))
        lengths = np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)
        return np.asarray(means / lengths, dtype=np.float32)


def _unpacked() -> Path:
    target = RESULTS / "wordllama"
    if not target.exists():
        RESULTS.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=RESULTS) as scratch:
            install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", scratch]
            subprocess.run([*install, PACKAGE], check=True)
            # its data alone, none of its code
            target.mkdir()
            for part in (WEIGHTS, TOKENIZER):
                shutil.copy(next(Path(scratch).glob(f"wordllama/*/{part}")), target)
    return target
