"""Texts with line breaks, from records that have them: three released texts of each form, and how many keep it.

    python bench/forms.py [--texts 24] [--records 1500] [--work bench/results/forms]

The records are made up: messages of the demo as e-mails, and as dialogues. Three public examples show the form. The
default method writes at ε = 8. What is printed last is how many released texts have the form, and how many records do.
A run goes on where it stopped.
"""

import argparse
import random
import re
from collections.abc import Callable
from pathlib import Path

import plainchant as pc
from ends_of_texts import EMAILS
from plainchant.cli.demo_data import demo_records

NAMES = ["Ada Moss", "Jonas Reed", "Priya Nair", "Tomas Lind", "Ruth Amadi", "Leo Castel", "Mina Okafor", "Karl Weber"]
DIALOGUES = (
    "Desk: Good morning, what can I do for you?\nCaller: I lost my library card on the bus.\nDesk: I can send you a "
    "new one. Is your address still the same?\nCaller: Yes, it is.",
    "Desk: Hello, service desk.\nCaller: The swimming hall was closed when I came on Sunday.\nDesk: A pump failed, and "
    "it is open again from tomorrow.\nCaller: Good to know, thank you.",
    "Desk: Service desk, good afternoon.\nCaller: When is the street market this month?\nDesk: On the last Saturday, "
    "from nine to two.\nCaller: Is there parking nearby?\nDesk: Yes, behind the town hall.",
)


def as_email(text: str, label: str, chance: random.Random) -> str:
    """A message with a subject, a greeting and a name."""
    greeting, end = chance.choice(["Hello,", "Dear team,", "Hi,"]), chance.choice(["Kind regards,", "Best,", "Thanks,"])
    return f"Subject: {label.capitalize()}\n\n{greeting}\n\n{text}\n\n{end}\n{chance.choice(NAMES)}"


def as_dialogue(text: str, label: str, chance: random.Random) -> str:
    """A message as what a caller says, sentence by sentence, with a desk that answers."""
    answers = ["I see.", "Where is that?", "I am sorry to hear that.", "Since when?", f"Is that about {label}?"]
    lines = ["Desk: Hello, what can I do for you?"]
    for sentence in re.split(r"(?<=[.!?]) ", text):
        lines += [f"Caller: {sentence}", f"Desk: {chance.choice(answers)}"]
    return "\n".join([*lines[:-1], "Desk: Thank you, I will pass it on."])


Made = Callable[[str, str, random.Random], str]
FORMS: dict[str, tuple[Made, tuple[str, ...], str]] = {
    "e-mails": (as_email, EMAILS, r"Subject: [^\n]+\n\n[^\n]+\n\n.+\n\n?[^\n]+"),
    "dialogues": (as_dialogue, DIALOGUES, r"(Desk|Caller): [^\n]+(\n(Desk|Caller): [^\n]+)+"),
}


def main() -> None:
    """Releases texts of each form and prints some of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--texts", type=int, default=24)
    parser.add_argument("--records", type=int, default=1500)
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "results" / "forms")
    options = parser.parse_args()
    messages = demo_records(options.records)
    for name, (made, examples, pattern) in FORMS.items():
        chance = random.Random(0)
        records = [{"text": made(row["text"], row["label"], chance)} for row in messages]
        config = pc.SynthesisConfig(
            texts=options.texts, max_tokens=96, max_record_tokens=128, expected_units=len(records),
            prompt={"examples": [{"text": text} for text in examples]},
        )  # fmt: skip
        out = options.work / name
        performance = pc.PerformanceOptions(dtype="bfloat16", threads=1)
        with pc.synthesize(records, pc.plan(config), out=out, resume=out.exists(), performance=performance) as run:
            run.finish()
            texts = [row["text"] for row in run.directory.released()]
        for text in texts[:3]:
            print(f"--- {name}\n{text}")
        kept, real = (
            sum(re.fullmatch(pattern, text, re.DOTALL if name == "e-mails" else 0) is not None for text in some)
            for some in (texts, [row["text"] for row in records])
        )
        print(f"=== {name}: {kept} of {len(texts)} released texts have the form, {real} of {len(records)} records")


if __name__ == "__main__":
    main()
