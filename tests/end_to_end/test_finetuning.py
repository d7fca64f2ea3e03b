"""The bench's DP-SGD: each record's gradient is its own, clipped; the noise pays for ε; the tuned model is a model."""

import json

import dp_accounting
import pytest
import torch
import transformers

from finetuning import Sequences, Trainer, Tuning, adapted, tune, without_adapters
from plainchant.config import SynthesisConfig
from plainchant.data.tables import Record
from plainchant.generation.prompting import Prompts
from plainchant.models.transformers.load import load_model

TEXTS = ["a lamp is broken", "the bus was late, and then it rained on everybody", "a dog", "where is the bench now"]
RECORDS = [Record(text, None, None) for text in TEXTS]
TUNING = Tuning(steps=2, batch=3, rank=2, rate=0.1, clip=0.5, together=3)


@pytest.fixture
def config(model):
    return SynthesisConfig(method="public", model=str(model), epsilon=3.0, max_tokens=8)


@pytest.fixture
def sequences(config):
    return Sequences.of(RECORDS, Prompts(config, load_model(config.model)))


def trainer(config, tuning=TUNING):
    torch.manual_seed(0)
    network = transformers.AutoModelForCausalLM.from_pretrained(config.model)
    made = Trainer(network, tuning, range(network.config.vocab_size))
    with torch.no_grad():
        # at 0 the other half of an adapter would have no gradient
        for adapter in made.adapters:
            adapter.up.normal_()
    return network, made


@pytest.mark.parametrize("clip", [0.01, 1e6])
def test_every_gradient_is_that_of_its_record_alone_and_clipped(config, sequences, clip):
    _, made = trainer(config, Tuning(steps=1, rank=2, clip=clip, together=3))
    together = made.clipped(sequences, range(len(TEXTS)))
    alone = [torch.zeros_like(weight) for weight in made.weights]
    for record in range(len(TEXTS)):
        loss = made.loss([sequences.tokens[record]], [sequences.first[record]]).sum()
        gradients = torch.autograd.grad(loss, made.weights)
        norm = torch.sqrt(sum(gradient.square().sum() for gradient in gradients))
        assert norm > 0.01
        for own, gradient in zip(alone, gradients, strict=True):
            own += gradient * min(1.0, clip / float(norm))
    for own, found in zip(alone, together, strict=True):
        assert torch.allclose(own, found, rtol=1e-3, atol=1e-4 * float(own.abs().max()))


def test_what_stands_before_a_text_is_no_part_of_its_loss(config, sequences):
    _, made = trainer(config)
    tokens, first = sequences.tokens[0], sequences.first[0]
    assert load_model(config.model).decode(tokens[first:]).strip().startswith(TEXTS[0])
    assert made.loss([tokens], [len(tokens)]).item() == 0.0
    assert made.loss([tokens], [first]).item() > 0.0


def test_merged_adapters_do_the_same(config, sequences):
    network, _ = trainer(config)
    ids = torch.tensor([sequences.tokens[1]])
    with torch.no_grad():
        before = network(ids).logits
        without_adapters(network)
        assert torch.allclose(network(ids).logits, before, atol=1e-4)
        plain = transformers.AutoModelForCausalLM.from_pretrained(config.model)
        assert not torch.allclose(plain(ids).logits, before, atol=1e-2)
    assert adapted(network, 2)


@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_the_noise_pays_for_epsilon(epsilon):
    tuning = Tuning(steps=50, batch=100)
    sigma = tuning.noise(2000, epsilon, 1e-6)
    accountant = dp_accounting.rdp.RdpAccountant()
    step = dp_accounting.PoissonSampledDpEvent(0.05, dp_accounting.GaussianDpEvent(sigma))
    accountant.compose(step, 50)
    # Rényi orders bound from above what the exact distribution of losses finds
    assert epsilon * 0.98 <= accountant.get_epsilon(1e-6) <= epsilon * 1.4


def test_training_goes_on_where_it_stopped_and_ends_in_a_model(config, tmp_path, monkeypatch):
    public = tmp_path / "public.jsonl"
    public.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    steps = []

    def interrupted(self, *arguments):
        steps.append(arguments)
        if len(steps) == 2:
            raise KeyboardInterrupt
        return Trainer_step(self, *arguments)

    Trainer_step = Trainer.step
    monkeypatch.setattr(Trainer, "step", interrupted)
    folder = tmp_path / "tuned"
    options = {"public": public, "folder": folder, "dtype": "float32"}
    with pytest.raises(KeyboardInterrupt):
        tune(config, RECORDS, TUNING, **options)
    made, seconds = tune(config, RECORDS, TUNING, **options)
    assert len(steps) == 3
    assert seconds > 0
    tuned, plain = load_model(made), load_model(config.model)
    assert tuned.vocabulary_size == plain.vocabulary_size
    # it is there by now
    assert tune(config, RECORDS, TUNING, **options) == (made, seconds)
    assert len(steps) == 3
