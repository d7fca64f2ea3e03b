"""The demo's planted secrets come out where nothing protects them, and do not where something does.

    python bench/planted_secrets.py [--method non-private] [--out runs/secrets]

Writes texts from the demo's made-up messages, a single one behind each text where the method is non-private, and counts
the planted secrets among them. The release of non-private is not to be shared; here everything is made up.
"""

import argparse
import json
from pathlib import Path

from plainchant.config import Method, PerformanceOptions, SynthesisConfig
from plainchant.demo import DEMO_EXAMPLES, DEMO_LABELS, PLANTED_SECRETS, demo_records
from plainchant.planning import plan
from plainchant.synthesis import synthesize


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--method", default="non-private")
    parser.add_argument("--texts", type=int, default=600)
    parser.add_argument("--out", type=Path, default=Path("runs/secrets"))
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    records = demo_records()
    config = SynthesisConfig(
        method=options.method,
        clusters="none" if options.method != Method.PUBLIC else None,
        labels=DEMO_LABELS,
        label_column="label",
        texts=options.texts,
        max_tokens=48,
        prompt={
            "header": "Messages to a city's service desk, each with its department.\n\n",
            "example": "Department: {label}\nMessage: {text}\n\n",
            "examples": DEMO_EXAMPLES,
        },
    )
    performance = PerformanceOptions(threads=options.threads, dtype=options.dtype)
    with synthesize(
        records, plan(config), out=options.out, resume=options.resume, performance=performance, allow_not_private=True
    ) as run:
        texts = [text.text for text in run]
    found = [secret for secret in PLANTED_SECRETS if any(secret in text for text in texts)]
    print(json.dumps({"method": options.method, "texts": len(texts), "planted": len(PLANTED_SECRETS), "found": found}))


if __name__ == "__main__":
    main()
