"""How often the public model ends a text by itself, by what ends an entry: the figures of docs/how-to/form.md.

    python bench/ends_of_texts.py [--texts 24] [--max-tokens 80]

No private data: made-up e-mails as public examples, or none. The default entry ends where the next one begins; it is
compared with entries that end at a line `###`, and with single lines.
"""

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any

from plainchant import models
from plainchant.config import PerformanceOptions, SynthesisConfig
from plainchant.generation.decoding import BatchWork, Decoder, FinishedText, StopRule
from plainchant.generation.prompting import Prompts
from plainchant.models import LanguageModel
from plainchant.planning import make_plan
from plainchant.privacy.aggregation import Support
from plainchant.privacy.mechanisms import PublicMechanism
from plainchant.randomness import SystemRandomness

EMAILS = (
    "Subject: Invoice 2207 is wrong\n\nHello,\n\nThe invoice that came on Monday lists two printers, but we ordered "
    "one. Please send a new one.\n\nKind regards,\nMarta Lindqvist",
    "Subject: Meeting moved to Thursday\n\nHi Tom,\n\nThe room is taken on Wednesday, so we meet on Thursday at ten. "
    "Bring the sales figures, please.\n\nBest,\nIrene",
    "Subject: Broken handle on the blue suitcase\n\nDear team,\n\nThe handle came off after one trip. Can I have it "
    "repaired, or do I get my money back?\n\nThank you,\nOwen Barr",
)
MARK = "Text:\n{text}\n###\n\n"
TOLD = "Different texts of one kind, each followed by ###:\n\n"
# what is compared: its name, and the prompt
CASES: Mapping[str, Mapping[str, Any]] = {
    "e-mails, next entry": {"examples": [{"text": text} for text in EMAILS]},
    "e-mails, line ###": {"examples": [{"text": text} for text in EMAILS], "example": MARK},
    "no example, next entry": {},
    "no example, line ###, named in the header": {"header": TOLD, "example": MARK},
    "no example, single line": {"example": "Text: {text}\n\n"},
}


def written(model: LanguageModel, config: SynthesisConfig, count: int) -> list[FinishedText]:
    """Texts by the public model alone."""
    prompts, settings = Prompts(config, model), make_plan(config).settings
    mechanism = PublicMechanism(dataclasses.replace(settings, support=Support.TOP_K, batch_size=1))
    stop = StopRule(prompts.stop, config.max_tokens, config.min_tokens)
    decoder = Decoder(model, mechanism, stop, rows=32, randomness=SystemRandomness())
    prefix, start = tuple(prompts.prefix(None)), tuple(prompts.start(None))
    return list(decoder.run([BatchWork(number, prefix, start, (), (0,)) for number in range(count)]))


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--texts", type=int, default=24)
    parser.add_argument("--max-tokens", type=int, default=80)
    options = parser.parse_args()
    model = models.load("gemma-3-270m", PerformanceOptions())
    print("| prompt | complete texts | words per text | lines per text |\n|---|---|---|---|")
    for name, prompt in CASES.items():
        config = SynthesisConfig(method="public", max_tokens=options.max_tokens, prompt=prompt)
        texts = written(model, config, options.texts)
        complete = sum(text.finish != "length" for text in texts)
        words = sum(len(text.text.split()) for text in texts) / len(texts)
        lines = sum(text.text.count("\n") + 1 for text in texts) / len(texts)
        print(f"| {name} | {complete} of {len(texts)} | {words:.0f} | {lines:.1f} |", flush=True)


if __name__ == "__main__":
    main()
