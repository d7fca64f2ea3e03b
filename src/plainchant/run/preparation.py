"""What all steps of a run share, made once. Everything that can fail for public reasons fails here, at no cost."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plainchant import models
from plainchant.arrays import Float32Array, IntArray
from plainchant.config import PerformanceOptions, SynthesisConfig
from plainchant.data.centres import Centres
from plainchant.data.embedding import Embedder, directed, in_public_steps
from plainchant.data.sample import KEY_BYTES, Sample
from plainchant.data.tables import Record, fingerprint
from plainchant.errors import ConfigError, DataError, ModelError, PrivacyError, RunError, foreign_messages_hidden
from plainchant.generation.executor import checked_for, open_embedder, open_readers
from plainchant.generation.prompting import Prompts
from plainchant.models import LanguageModel
from plainchant.planning import Guarantee, Plan, guarantee_of
from plainchant.privacy.histograms import NO_CELL
from plainchant.randomness import RandomSource
from plainchant.run.inputs import public_inputs, read_table
from plainchant.run.joint import check_package
from plainchant.run.ledger import Ledger
from plainchant.run.progress import Progress
from plainchant.run.promise import checked_promise, recorded_version
from plainchant.run.store import Marks, RunDirectory
from plainchant.run.tuning import with_width
from plainchant.run.writers import EndpointWriter, Loaded, LocalWriter, Writer


@dataclass(frozen=True)
class Preparation:
    """Made once per process, read by every round.

    Attributes:
        plan: what was decided before private data is read.
        guarantee: what the release promises; none where the randomness is not private.
        table: the private records, by number: those of the sample, where there is one (guarantee 13.6); empty for
            methods that read none. Private.
        directory: the run's directory.
        local: the language model that reads records; None where it writes nothing.
        public: writes all texts that no record contributes to; None where there is no text.
        embedder: of texts; None where nothing is embedded.
        corpus: public texts or saved centres to cluster around; None: texts are sampled from the model.
        performance: device, width and workers, all decided.
        randomness: the source of every secret and every token.
        progress: receives progress reports.
    """

    plan: Plan
    guarantee: Guarantee
    table: Sequence[Record]
    directory: RunDirectory
    local: Loaded | None
    public: Writer | None
    embedder: Embedder | None
    corpus: Centres | Sequence[str] | None
    performance: PerformanceOptions
    randomness: RandomSource
    progress: Progress

    @property
    def config(self) -> SynthesisConfig:
        """The run's configuration."""
        return self.plan.config

    @property
    def loaded(self) -> Loaded:
        """The language model that reads records."""
        if self.local is None:
            raise RunError("model: none was loaded for this run, but a step needs one; start it again")
        return self.local

    @property
    def writer(self) -> Writer:
        """Who writes all texts that no record contributes to."""
        if self.public is None:
            raise RunError("model: none was loaded for this run, but a step needs one; start it again")
        return self.public

    @property
    def prompts(self) -> Prompts:
        """Contexts from records and labels."""
        return self.loaded.prompts

    def encode(self, texts: Sequence[str], *, alone: bool = False, stage: str | None = None) -> Float32Array:
        """Embeddings of texts; see `Embedder.encode`.

        Args:
            texts: n texts.
            alone: whether each text is computed separately, as records must be.
            stage: the name under which progress is reported; None reports nothing.

        Returns:
            Unit vectors, float32 [n, d].
        """
        if self.embedder is None:
            raise RunError("embedder: none was loaded for this run, but a step needs one; start it again")
        report: Callable[[float], None] | None = None
        if stage is not None:
            report = functools.partial(self.progress.stage, stage)
            # progress must not reveal even the number of private texts
            report = in_public_steps(report) if alone else report
        with foreign_messages_hidden("the embedder"):
            return self.embedder.encode(texts, alone=alone, progress=report)

    def labels_of(self, records: Sequence[int] | IntArray) -> IntArray:
        """The label of each record, by number, NO_CELL where it is not in the label set, int64 [n]. Secret."""
        labels = self.config.labels
        index: dict[str | None, int] = {label: place for place, label in enumerate(labels)}
        return np.array(
            [index.get(self.table[record].label, NO_CELL) if labels else 0 for record in records], dtype=np.int64
        )

    def embeddings(self, records: IntArray) -> Float32Array:
        """Embeddings of these private records, float32 [len(records), d], each computed once per run. Private.

        Args:
            records: their numbers, int64 [n]. Of a unit with many records only one is ever asked for.
        """
        kept = self.directory.embeddings()
        if kept is not None and len(kept) != len(self.table):
            raise RunError(f"{self.directory.path}: the kept embeddings are not those of its table; start a new run")
        # a row of zeros is one that was not asked for
        lacking = records if kept is None else records[~kept[records].any(axis=1)]
        if kept is None or len(lacking):
            texts = [self.table[record].text for record in lacking]
            # whatever an embedder makes of a single record, it ends no run
            found = directed(self.encode(texts, alone=True, stage="embedding the records"))
            if kept is None:
                kept = np.zeros((len(self.table), found.shape[1]), dtype=np.float32)
            kept[lacking] = found
            self.directory.save_embeddings(kept)
        return kept[records]


def prepare(
    records: Any,
    plan: Plan,
    *,
    out: Path,
    begun: RunDirectory | None,
    performance: PerformanceOptions,
    allow_not_private: bool,
    ledger: Ledger | None,
    randomness: RandomSource,
    model: LanguageModel | None,
    embedder: Embedder | None,
    progress: Progress,
    notes: Mapping[str, Mapping[str, Any]] | None = None,
) -> Preparation:
    """Reads, checks and loads; makes the run's directory last.

    Arguments as for `synthesis.synthesize`; `begun` is the locked directory of a run to continue, None for a new one.
    """
    config, guarantee = plan.config, promised(plan, randomness, allow_not_private=allow_not_private)
    _refuse_loaded_model(model, performance)
    if begun is None:
        RunDirectory.check_free(out)
    if ledger is not None:
        _check_ledger(ledger, guarantee, begun)
    reads_records = config.reads_records
    if reads_records and records is None:
        raise DataError("data: not given; name the private table with --data FILE")
    sample = sample_of(plan, begun, randomness)
    table = read_table(records, config, sample, open_readers(performance)) if reads_records else []
    if begun is not None:
        # before anything is loaded, which may take minutes
        _check_begun_alike(begun, plan, guarantee, table, randomness)
    formed = begun is not None and begun.is_formed()
    clustered = config.clustered and not formed
    # also when a run resumes that was interrupted before: the files may have changed since then
    corpus = public_inputs(records, table, config, clustered=clustered) if reads_records and not formed else None
    if embedder is None and (clustered or config.votes):
        embedder = open_embedder(config.embedder, performance)
    _check_tools(config, corpus, embedder)
    # of a model that was handed over loaded, nobody knows the version
    local = revision = None
    if config.needs_model:
        if model is None:
            model = loaded_model(config.model, performance, progress)
            revision = models.revision_of(config.model)
        local, performance = _loaded_for(plan, model, performance, randomness, progress)
    writer = writer_of(plan, local, performance, progress) if config.has_text else None
    if not formed:
        _try_out(writer, progress)
    directory = begun or RunDirectory.create(
        out, plan, guarantee, data=fingerprint(table), private=randomness.private, model=revision,
        sample_key=None if sample is None else sample.key, notes=notes,
    )  # fmt: skip
    _check_same_model(directory, revision)
    if isinstance(writer, EndpointWriter):
        writer.log_to(directory.log_request)
    return Preparation(
        plan, guarantee, table, directory, local, writer, embedder, corpus, performance, randomness, progress
    )


def _check_ledger(ledger: Ledger, guarantee: Guarantee, begun: RunDirectory | None) -> None:
    """Refuses what a ledger cannot pay for, before anything is read; also where others have spent it since."""
    if begun is not None and begun.marks() != Marks():
        return
    try:
        ledger.check(guarantee)
    except PrivacyError as error:
        free = "" if begun is None else ". This run has cost nothing yet, and cannot change what was asked for"
        raise PrivacyError(f"{error}{free}") from None


def sample_of(plan: Plan, directory: RunDirectory | None, randomness: RandomSource) -> Sample | None:
    """The secret sample of a run; its key is drawn once, when a run starts. None where it looks at all units."""
    if directory is not None:
        return directory.sample()
    if plan.sample_rate == 1:
        return None
    return Sample(randomness.below(2 ** (8 * KEY_BYTES)).to_bytes(KEY_BYTES, "big"), plan.sample_rate)


def _try_out(writer: Writer | None, progress: Progress) -> None:
    """A trial of an endpoint with public text, before anything is spent."""
    if isinstance(writer, EndpointWriter):
        progress.stage("trying out the endpoint", 0.0)
        writer.try_out()
        progress.stage("trying out the endpoint", 1.0)


def _loaded_for(
    plan: Plan,
    model: LanguageModel,
    performance: PerformanceOptions,
    randomness: RandomSource,
    progress: Progress,
) -> tuple[Loaded, PerformanceOptions]:
    """A model that a plan's guarantee may rest on, and the width that is decided for it."""
    config = plan.config
    if model.numerical_slack > config.numerical_slack:
        raise PrivacyError(
            f"numerical_slack = {config.numerical_slack:g}: logits of {model.name} with this dtype may differ by "
            f"{model.numerical_slack:g}; set numerical_slack to that or more, or dtype = float32"
        )
    loaded = Loaded.of(model, config)
    if not randomness.private:
        # a measured width would change the order in which a seed's numbers are used
        performance = performance.model_copy(update={"rows": performance.width})
    performance = with_width(performance, model, loaded.prompts, plan, progress)
    # at the widths of the run's passes, before the model reads a record and before the ledger is charged
    settled = checked_for(plan, model, performance)
    if settled.width < performance.width:
        progress.stage("checking the model: batches move each other here, so each has its own passes", 1.0)
    return loaded, settled


def writer_of(plan: Plan, local: Loaded | None, performance: PerformanceOptions, progress: Progress) -> Writer:
    """Who writes the texts that no record contributes to: the endpoint, another local model, or the run's own."""
    config = plan.config
    if config.candidate_endpoint is not None:
        return EndpointWriter(config, performance)
    if config.candidate_model is not None:
        model = loaded_model(config.candidate_model, performance, progress)
        local = Loaded.of(model, config, config.form_of_candidates)
    if local is None:
        raise RunError("model: none was loaded for this run, but a step needs one; start it again")
    return LocalWriter(local, plan.settings, performance.width, on_tokens=progress.tokens)


def _refuse_loaded_model(model: LanguageModel | None, performance: PerformanceOptions) -> None:
    if model is not None and performance.executor == "ray":
        raise ConfigError(
            f"model: a loaded one ({model.name}) was given, but with executor = ray each worker loads its own; name a "
            "folder or a hub's model in the configuration, or use executor = local"
        )


def _check_same_model(directory: RunDirectory, revision: str | None) -> None:
    """Card and statement name one version of the model for all texts."""
    begun = directory.origin.model
    if begun is not None and revision is not None and begun != revision:
        raise ModelError(
            f"resume: model = {directory.config.model!r} is {revision} now, and the run was started with {begun}; put "
            "that version back or start a new run"
        )


def _check_tools(config: SynthesisConfig, corpus: Sequence[str] | Centres | None, embedder: Embedder | None) -> None:
    """Checks that the extra for attributes is there, and that saved centres lie in the embedder's space."""
    if config.columns.attributes:
        check_package()
    if embedder is None or not isinstance(corpus, Centres):
        return
    with foreign_messages_hidden("the embedder"):
        own, given = embedder.encode(["A public text."]).shape[1], corpus.vectors.shape[1]
    if own != given:
        raise ConfigError(
            f"centres: have {given} dimensions, and the vectors of embedder = {embedder.name!r} have {own}; fit and "
            "save them with that embedder"
        )


def promised(plan: Plan, randomness: RandomSource, *, allow_not_private: bool) -> Guarantee:
    """The guarantee of a run with this plan and this randomness.

    Raises:
        PrivacyError: there is no guarantee, and `allow_not_private` is not set.
    """
    guarantee = guarantee_of(plan, private=randomness.private)
    if guarantee.kind == "none" and not allow_not_private:
        raise PrivacyError(
            f"{guarantee.statement} To run it anyway, pass --i-know-this-is-not-private (allow_not_private=True)."
        )
    return guarantee


def _check_begun_alike(
    directory: RunDirectory, plan: Plan, guarantee: Guarantee, table: Sequence[Record], randomness: RandomSource
) -> None:
    """Checks that a resumed run has the configuration, plan, data and kind of randomness that it was started with.

    Raises:
        ConfigError, DataError, PrivacyError, RunError: one of them differs.
    """
    before, now = directory.config.model_dump(), plan.config.model_dump()
    different = sorted(name for name in now if now[name] != before[name])
    if different:
        raise ConfigError(
            f"resume: {', '.join(different)} differ from the values the run was started with "
            f"({directory.path / 'config.toml'}); use those values or start a new run"
        )
    begun, going_on, version = directory.plan, plan.as_dict(), recorded_version(directory)
    if version != plan.guarantee.version or begun | {"guarantee": None} != going_on | {"guarantee": None}:
        # another version may plan and account differently
        raise RunError(f"resume: the run was started by plainchant {version} with another plan; use that version")
    checked_promise(directory, plan)
    origin = directory.origin
    if origin.data != fingerprint(table):
        raise DataError("resume: the data is not the data that the run was started with; start a new run")
    if guarantee.kind != "none" and not origin.private:
        raise PrivacyError(f"{directory.path}: was started with seeded randomness and is not private; start a new run")
    if origin.private and not randomness.private:
        # the seed would not be recorded, and the next process to resume would claim the guarantee
        raise PrivacyError(
            f"{directory.path}: was started without a seed, and a seed would undo its guarantee; start a new run"
        )


def loaded_model(name: str, performance: PerformanceOptions, progress: Progress) -> LanguageModel:
    """A language model by its configured name."""
    progress.stage("loading the language model", 0.0)
    model = models.load(name, performance)
    progress.stage("loading the language model", 1.0)
    return model
