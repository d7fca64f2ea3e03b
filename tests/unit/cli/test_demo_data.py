"""The demo's data: always the same, varied, and with its secrets where they belong."""

import re
import subprocess
import sys
from collections import Counter

import pytest

from plainchant.cli.demo_data import DEMO_EXAMPLES, DEMO_LABELS, PLANTED_SECRETS, demo_public_texts, demo_records
from plainchant.data.tables import read_records, read_texts
from plainchant.errors import ConfigError

RECORDS = demo_records()
PUBLIC_TEXTS = demo_public_texts()


def test_the_demo_is_the_same_in_every_process() -> None:
    code = (
        "import sys; from plainchant.cli.demo_data import *; "
        "sys.stdout.write(repr((demo_records(), demo_public_texts())))"
    )
    for hash_seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)}
        out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True, text=True)
        assert out.stdout == repr((RECORDS, PUBLIC_TEXTS))


def test_messages_are_many_different_and_short() -> None:
    texts = [record["text"] for record in RECORDS]
    assert len(texts) == len(set(texts)) == 600
    assert all(12 <= len(text.split()) <= 40 for text in texts)
    assert len({" ".join(text.split()[:8]) for text in texts}) > 450


def test_labels_are_balanced() -> None:
    counts = Counter(record["label"] for record in RECORDS)
    assert set(counts) == set(DEMO_LABELS)
    assert min(counts.values()) > 100


@pytest.mark.parametrize("secret", PLANTED_SECRETS)
def test_each_secret_is_in_one_record_and_in_nothing_public(secret: str) -> None:
    assert sum(secret in record["text"] for record in RECORDS) == 1
    public = " ".join([*PUBLIC_TEXTS, *(example["text"] for example in DEMO_EXAMPLES)]).lower()
    for word in re.split(r"[ #]", secret.lower()):
        assert not re.search(rf"\b{re.escape(word)}\b", public)


def test_secrets_come_in_five_pairs() -> None:
    assert len(PLANTED_SECRETS) == 10
    holders = [{s for s in PLANTED_SECRETS if s in record["text"]} for record in RECORDS]
    assert sorted(map(len, filter(None, holders))) == [2] * 5


@pytest.mark.parametrize("n", [5, 6, 40, 2_000])
def test_every_size_has_all_secrets(n: int) -> None:
    records = demo_records(n)
    assert len(records) == n
    assert all(any(secret in record["text"] for record in records) for secret in PLANTED_SECRETS)


@pytest.mark.parametrize("n", [1, 1_000])
def test_public_texts_of_every_size(n: int) -> None:
    assert len(set(demo_public_texts(n))) == n


@pytest.mark.parametrize(("generate", "n"), [(demo_records, 4), (demo_records, 10_001), (demo_public_texts, 1_001)])
def test_sizes_out_of_bounds_are_refused(generate: object, n: int) -> None:
    assert callable(generate)
    with pytest.raises(ConfigError, match=f"n={n} .* from"):
        generate(n)


def test_examples_are_two_a_label_and_not_from_the_data() -> None:
    assert Counter(example["label"] for example in DEMO_EXAMPLES) == dict.fromkeys(DEMO_LABELS, 2)
    texts = {record["text"] for record in RECORDS} | set(PUBLIC_TEXTS)
    assert not texts & {example["text"] for example in DEMO_EXAMPLES}


def test_public_texts_share_no_sentence_with_the_messages() -> None:
    sentences = {sentence for record in RECORDS for sentence in re.split(r"(?<=[.?!]) ", record["text"])}
    assert not sentences & set(PUBLIC_TEXTS)


def test_the_grammar_leaves_no_traces() -> None:
    for text in [*(record["text"] for record in RECORDS), *PUBLIC_TEXTS]:
        assert not re.search(r"[{}<>|+]|  | [.,?!]|[.?!]{2}|\b(\w+) \1\b", text)
        assert not re.search(r"\b(Could|When|Who|Which|Is) [^.?!]*[.!]", text)
        assert text[0].isupper()
        assert text[-1] in ".?!"


def test_the_demo_reads_as_any_other_table() -> None:
    records = read_records(RECORDS, label_column="label")
    assert [record.text for record in records] == [record["text"] for record in RECORDS]
    assert read_texts([{"text": text} for text in PUBLIC_TEXTS]) == PUBLIC_TEXTS
