"""What the machine can do, and what a model needs of it."""

import time
from typing import Any

import torch
from torch import Tensor, nn

from speed.common import ROWS, best_seconds

# sizes of square matrices, and how often their product is timed
SQUARES = ((2048, 10), (4096, 3))


def gemm_rate(dtype: torch.dtype) -> float:
    """FLOP/s of the best of several products of large square matrices."""
    best = 0.0
    for size, times in SQUARES:
        one, other = (torch.randn(size, size).to(dtype) for _ in range(2))
        for _ in range(times):
            began = time.perf_counter()
            torch.mm(one, other)
            best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def linears(module: Any) -> list[Tensor]:
    """Weights of the linear layers of a transformers model, head and embedding left out."""
    return [layer.weight for layer in module.base_model.modules() if isinstance(layer, nn.Linear)]


def windows(config: Any) -> list[int | None]:
    """How far back each layer looks, None where it sees everything."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    return [window if kind == "sliding_attention" else None for kind in kinds]


def flops(module: Any, rows: int, context: int, ids: int) -> int:
    """What `rows` rows need for one token: linear layers, attention over their own contexts, the head on `ids`."""
    shape = module.config.get_text_config()
    width = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    seen = sum(min(window or context, context) for window in windows(shape))
    attention = 4 * shape.num_attention_heads * width * seen
    layers = 2 * sum(weight.numel() for weight in linears(module))
    return int(rows * (layers + attention + 2 * ids * shape.hidden_size))


def bare(module: Any, steps: int) -> tuple[float, int]:
    """Seconds of the same list of matrix products as bare calls: what the shapes alone permit."""
    weights = [weight.T for weight in linears(module)]
    inputs = {len(weight): torch.randn(ROWS, len(weight)).to(weight.dtype) for weight in weights}

    def products() -> None:
        for weight in weights:
            torch.mm(inputs[len(weight)], weight)

    with torch.inference_mode():
        return best_seconds(products, steps), 2 * ROWS * sum(weight.numel() for weight in weights)
