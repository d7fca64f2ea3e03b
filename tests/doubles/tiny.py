"""Real transformers models, random and small enough to run whole commands in seconds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast


def byte_tokenizer(special: Sequence[str] = ("<bos>", "<eos>"), unflagged: Sequence[str] = (), **names: str) -> Any:
    """Bytes as tokens, with special tokens in front; `unflagged` ones are control tokens that are not said to be so."""
    vocabulary = [*special, *sorted(ByteLevel.alphabet())]
    tokenizer = Tokenizer(BPE({name: i for i, name in enumerate(vocabulary)}, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in special if name not in unflagged])
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in unflagged])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **({"bos_token": "<bos>", "eos_token": "<eos>"} | names)
    )  # fmt: skip


def random_model(config: Any, seed: int) -> Any:
    """A model with random weights, float32."""
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def save_tiny_llama(path: Path) -> Path:
    """Saves a random Llama over bytes, two layers of width 32, with its tokenizer."""
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(path)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    random_model(config, seed=0).save_pretrained(path)
    return path
