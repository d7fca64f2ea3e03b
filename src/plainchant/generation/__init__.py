"""From contexts to tokens: prompts, batches, the decoding loop, and where it runs."""
