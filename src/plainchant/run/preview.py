"""Texts by the public model with a configuration's prompts, to work on prompts and examples: no data is read, ε = 0."""

from plainchant.config import PerformanceOptions, SynthesisConfig
from plainchant.errors import ConfigError
from plainchant.models import LanguageModel
from plainchant.run.joint import check_package
from plainchant.run.preparation import loaded_model
from plainchant.run.progress import NoProgress, Progress
from plainchant.run.released import SyntheticText
from plainchant.run.writers import Loaded, LocalWriter, public_requests


def preview(
    config: SynthesisConfig,
    *,
    texts: int = 10,
    performance: PerformanceOptions | None = None,
    model: LanguageModel | None = None,
    progress: Progress | None = None,
) -> list[SyntheticText]:
    r"""A few texts by the public model alone, the labels in turn. Reads no private data and writes nothing: ε = 0.

    A run shows the model a private record where these prompts show none, so its texts are closer to the data. What the
    prompt and its examples do to form, length and language shows here all the same.

    Args:
        config: names the model and holds the prompts.
        texts: how many texts.
        performance: device, dtype and width.
        model: a loaded one, used instead of the configured name.
        progress: receives progress reports.

    Raises:
        ConfigError: the prompts do not fit the model, or `texts` is below 1.
        MissingDependencyError, ModelError: the model cannot be loaded.

    >>> from plainchant.models.table import TableModel  # a model that knows six words
    >>> words = ["<end>", "Text:", "\n", " a", " b", " c"]
    >>> model = TableModel(words, lambda row: [-1.0, -9.0, -9.0, 0.0, 0.0, 0.0], end_of_text={0})
    >>> found = preview(SynthesisConfig(max_tokens=5), texts=2, model=model)
    >>> [text.origin for text in found]
    ['public', 'public']
    """
    if texts < 1:
        raise ConfigError(f"texts = {texts}: must be at least 1")
    if not config.has_text:
        raise ConfigError(f"method = {config.method.value}: writes no texts that could be shown; use another method")
    if config.columns.attributes:
        check_package()
    progress, performance = progress or NoProgress(), performance or PerformanceOptions()
    model = model or loaded_model(config.model, performance, progress)
    settings = config.token_request.settings(clip=1.0, batch_size=1)
    writer = LocalWriter(Loaded.of(model, config), settings, performance.width, on_tokens=progress.tokens)
    written, tokens = {}, 0
    progress.texts(0, texts, 0)
    for text in writer.write(public_requests(config, texts)):
        written[text.batch] = text.text
        tokens += text.tokens
        progress.texts(len(written), texts, tokens)
    labels = config.label_set
    return [SyntheticText(written[number], labels[number % len(labels)], 0, "public") for number in range(texts)]
