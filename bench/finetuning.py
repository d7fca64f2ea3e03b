"""The peer that needs training: the same model, fine-tuned on the records by DP-SGD, for cells of the study.

A cell with `finetuned = {steps, ...}` trains low-rank adapters (Hu et al. 2021) on every linear layer by DP-Adam (Abadi
et al. 2016; Yu et al. 2022): records drawn by Poisson sampling, the gradient of each clipped, Gaussian noise added. The
noise is calibrated by dp-accounting to the cell's ε and δ, for adding or removing one record. The texts are then
sampled from the tuned model as by the method `public`, whose prompts have no examples here. Training saves itself after
every step and goes on where it stopped.

A real head over 262,144 tokens would take most of the time of a step, so the loss is that of the tokens that a public
corpus uses; others are left out of it.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dp_accounting
import numpy as np
import torch
import transformers
from dp_accounting.pld import PLDAccountant
from torch import nn

from plainchant.config import SynthesisConfig
from plainchant.data.tables import Record, read_texts
from plainchant.generation.prompting import Prompts
from plainchant.models.transformers.load import folder_of, load_model

# Texts of the public corpus that say which tokens the loss knows, and tokens of a sequence at most.
KNOWN_FROM, LONGEST = 20_000, 96
ADAM = (0.9, 0.999)


@dataclass(frozen=True)
class Tuning:
    """How to train.

    Attributes:
        steps: of the optimiser.
        batch: expected records of a step.
        rank: of an adapter.
        rate: learning rate.
        clip: largest ℓ2-norm of a record's gradient.
        together: records in one pass.
    """

    steps: int
    batch: int = 256
    rank: int = 8
    rate: float = 1e-3
    clip: float = 1.0
    together: int = 16

    def noise(self, records: int, epsilon: float, delta: float) -> float:
        """The noise multiplier that spends (ε, δ): σ of the noise divided by `clip`."""

        def spent(sigma: float) -> Any:
            step = dp_accounting.PoissonSampledDpEvent(self.batch / records, dp_accounting.GaussianDpEvent(sigma))
            return dp_accounting.SelfComposedDpEvent(step, self.steps)

        found = dp_accounting.calibrate_dp_mechanism(
            PLDAccountant, spent, epsilon, delta, dp_accounting.LowerEndpointAndGuess(0.2, 2.0), tol=1e-3
        )
        return float(found)


class Adapter(nn.Module):
    """A frozen linear layer with a low-rank one beside it, which keeps the gradient of each sequence."""

    def __init__(self, linear: nn.Linear, rank: int):
        super().__init__()
        self.linear = linear
        self.down = nn.Parameter(torch.randn(rank, linear.in_features) / math.sqrt(linear.in_features))
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))
        self.each: list[torch.Tensor] = []

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """The layer's output, [B, T, out], of `rows`, [B, T, in]."""
        inner = rows.float() @ self.down.T
        own = inner @ self.up.T
        if own.requires_grad and torch.is_grad_enabled():
            own.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: self._keep(gradient, rows.detach().float(), inner.detach())
            )
        found: torch.Tensor = self.linear(rows) + own.to(rows.dtype)
        return found

    def _keep(self, gradient: torch.Tensor, rows: torch.Tensor, inner: torch.Tensor) -> None:
        within = gradient @ self.up.detach()
        self.each = [torch.einsum("btr,bti->bri", within, rows), torch.einsum("bto,btr->bor", gradient, inner)]

    @property
    def weights(self) -> list[nn.Parameter]:
        """What is trained."""
        return [self.down, self.up]

    def merged(self) -> nn.Linear:
        """One linear layer that does the same."""
        with torch.no_grad():
            self.linear.weight += (self.up @ self.down).to(self.linear.weight.dtype)
        return self.linear


def adapted(model: nn.Module, rank: int) -> list[Adapter]:
    """Freezes a model and puts an adapter on each linear layer of its blocks."""
    model.requires_grad_(False)
    adapters = []
    for layer in list(model.modules()):
        for name, child in list(layer.named_children()):
            if isinstance(child, nn.Linear) and not isinstance(layer, Adapter) and name != "lm_head":
                adapters.append(Adapter(child, rank))
                setattr(layer, name, adapters[-1])
    return adapters


def without_adapters(model: nn.Module) -> None:
    """Merges every adapter into its layer."""
    for layer in list(model.modules()):
        for name, child in list(layer.named_children()):
            if isinstance(child, Adapter):
                setattr(layer, name, child.merged())


@dataclass(frozen=True)
class Sequences:
    """Records as token ids, each with the place from which on its tokens count, in the order of the records."""

    tokens: list[list[int]]
    first: list[int]

    @classmethod
    def of(cls, records: Sequence[Record], prompts: Prompts) -> "Sequences":
        """Every record as an entry after the prompt, and the beginning of the next entry, at which a text ends."""
        labels = {record.label for record in records}
        frames = {label: (prompts.prefix(label), prompts.start(label)) for label in labels}
        tokens, first = [], []
        for record in records:
            prefix, start = frames[record.label]
            tokens.append([*prefix, *prompts.record(record.text, record.label), *start[:2]][:LONGEST])
            first.append(len(prefix) + len(start))
        return cls(tokens, first)

    def passes(self, chosen: Sequence[int], together: int) -> Iterator[list[int]]:
        """The chosen records in passes, those of one length together."""
        order = sorted(chosen, key=lambda record: len(self.tokens[record]))
        for begin in range(0, len(order), together):
            yield order[begin : begin + together]


class Trainer:
    """DP-Adam on the adapters of a model."""

    def __init__(self, model: Any, tuning: Tuning, known: Sequence[int]):
        self.adapters = adapted(model, tuning.rank)
        self.weights = [weight for adapter in self.adapters for weight in adapter.weights]
        self._model, self._tuning = model, tuning
        self._known = torch.tensor(sorted(known))
        self._place = torch.full((model.config.vocab_size,), -100).index_copy(
            0, self._known, torch.arange(len(self._known))
        )
        self._head = model.get_output_embeddings().weight[self._known]
        self.optimiser = torch.optim.Adam(self.weights, lr=tuning.rate, betas=ADAM)

    def clipped(self, sequences: Sequences, chosen: Sequence[int]) -> list[torch.Tensor]:
        """The sum of the clipped gradients of the chosen records, for each weight."""
        total = [torch.zeros_like(weight) for weight in self.weights]
        for some in sequences.passes(chosen, self._tuning.together):
            self._backward([sequences.tokens[record] for record in some], [sequences.first[record] for record in some])
            each = [gradient for adapter in self.adapters for gradient in adapter.each]
            norms = torch.stack([gradient.flatten(1).square().sum(1) for gradient in each]).sum(0).sqrt()
            factors = (self._tuning.clip / norms.clamp(min=1e-12)).clamp(max=1.0)
            for own, gradient in zip(total, each, strict=True):
                own += torch.einsum("b,bij->ij", factors, gradient)
        return total

    def step(self, gradients: Sequence[torch.Tensor], sigma: float) -> None:
        """One step of the optimiser with noise of σ = `sigma` times the clip."""
        for weight, gradient in zip(self.weights, gradients, strict=True):
            noise = torch.randn_like(gradient) * sigma * self._tuning.clip
            weight.grad = (gradient + noise) / self._tuning.batch
        self.optimiser.step()

    def loss(self, tokens: Sequence[Sequence[int]], first: Sequence[int]) -> torch.Tensor:
        """The negative log-likelihood of each sequence's own tokens, float32 [B]."""
        longest = max(map(len, tokens))
        ids = torch.tensor([[*own, *[0] * (longest - len(own))] for own in tokens])
        there = torch.tensor([[1] * len(own) + [0] * (longest - len(own)) for own in tokens])
        counts = torch.arange(longest) >= torch.tensor(first)[:, None]
        targets = torch.where(there.bool() & counts, self._place[ids], -100)[:, 1:]
        hidden = self._model.get_decoder()(input_ids=ids, attention_mask=there, use_cache=False).last_hidden_state
        logits = (hidden[:, :-1] @ self._head.T).float()
        lost = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        return lost.view(targets.shape).sum(1)

    def _backward(self, tokens: Sequence[Sequence[int]], first: Sequence[int]) -> None:
        for weight in self.weights:
            weight.grad = None
        self.loss(tokens, first).sum().backward()  # type: ignore[no-untyped-call]


def tune(
    config: SynthesisConfig, records: Sequence[Record], tuning: Tuning, *, public: Path, folder: Path, dtype: str
) -> tuple[str, float]:
    """Trains, or goes on with it.

    Args:
        config: its model, prompt, labels, ε and δ.
        records: the private records, each with a label of the configuration.
        tuning: how to train.
        public: texts whose tokens the loss knows.
        folder: where training saves itself, and the tuned model.
        dtype: of the frozen weights.

    Returns:
        The folder of the tuned model, and the processor seconds that training took.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made, state = folder / "model", folder / "state.pt"
    kept = torch.load(state) if state.exists() else None
    if made.exists() and kept is not None:
        return str(made), float(kept["seconds"])
    language_model = load_model(config.model)
    prompts = Prompts(config, language_model)
    sequences = Sequences.of(records, prompts)
    texts = read_texts(public)[:KNOWN_FROM]
    frame = [token for label in config.label_set for token in prompts.record("", label) + prompts.start(label)]
    known = {token for text in texts for token in language_model.encode(text, trusted=False)} | set(frame)
    source = str(folder_of(config.model) or config.model)
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=getattr(torch, dtype))
    trainer = Trainer(model, tuning, sorted(known))
    sigma = tuning.noise(len(records), config.epsilon, config.delta)
    first, seconds = 0, 0.0
    if kept is not None:
        first, seconds = kept["step"], kept["seconds"]
        trainer.optimiser.load_state_dict(kept["optimiser"])
        with torch.no_grad():
            for weight, value in zip(trainer.weights, kept["weights"], strict=True):
                weight.copy_(value)
    chance = np.random.default_rng()
    for step in range(first, tuning.steps):
        began = time.process_time()
        chosen = np.flatnonzero(chance.random(len(records)) < tuning.batch / len(records)).tolist()
        trainer.step(trainer.clipped(sequences, chosen), sigma)
        seconds += time.process_time() - began
        saved = {"step": step + 1, "seconds": seconds, "optimiser": trainer.optimiser.state_dict()}
        torch.save(saved | {"weights": [weight.detach() for weight in trainer.weights]}, state.with_suffix(".new"))
        state.with_suffix(".new").rename(state)
        print(f"  step {step + 1} of {tuning.steps}, σ = {sigma:.3g}, {seconds:.0f} s", flush=True)
    without_adapters(model)
    model.save_pretrained(folder / "making")
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(folder / "making")
    (folder / "making").rename(made)
    return str(made), seconds
