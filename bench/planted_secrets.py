"""The demo's planted secrets come out where nothing protects them (the demo itself counts them where something does).

    python bench/planted_secrets.py [--out runs/secrets]

Writes texts by the non-private method, each from a single one of the demo's messages that hold a secret, and counts the
secrets in them: a positive control for "0 of 10". A release of this method is never to be shared; here all is made up.
"""

import argparse
import json
from pathlib import Path

from plainchant.cli.demo_data import DEMO_LABELS, DEMO_PROMPT, PLANTED_SECRETS, demo_records
from plainchant.config import PerformanceOptions, SynthesisConfig
from plainchant.planning import make_plan
from plainchant.run.synthesis import synthesize


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--texts", type=int, default=120)
    parser.add_argument("--temperature", type=float, default=0.5)
    parser.add_argument("--out", type=Path, default=Path("runs/secrets"))
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    records = [record for record in demo_records() if any(secret in record["text"] for secret in PLANTED_SECRETS)]
    config = SynthesisConfig(
        method="non-private",
        clusters="none",
        labels=DEMO_LABELS,
        label_column="label",
        texts=options.texts,
        temperature=options.temperature,
        max_tokens=48,
        prompt=DEMO_PROMPT | {"examples": ()},
    )
    performance = PerformanceOptions(threads=options.threads, dtype=options.dtype, rows=16)
    with synthesize(
        records,
        make_plan(config),
        out=options.out,
        resume=options.resume,
        performance=performance,
        allow_not_private=True,
    ) as run:
        texts = [text.text for text in run]
    found = [secret for secret in PLANTED_SECRETS if any(secret in text for text in texts)]
    print(json.dumps({"texts": len(texts), "planted": len(PLANTED_SECRETS), "found": found}))


if __name__ == "__main__":
    main()
