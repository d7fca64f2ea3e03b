"""The examples in docstrings give what they show; in the modules of mathematics every function has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import plainchant

FLAGS = doctest.NORMALIZE_WHITESPACE
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(plainchant.__path__, "plainchant.") if "__main__" not in module.name
)
# every public function of these has an example
WHOLE = (
    "plainchant.privacy.accounting",
    "plainchant.privacy.aggregation",
    "plainchant.privacy.amplification",
    "plainchant.privacy.histograms",
)
# and these have some
SOME = (
    "plainchant.config",
    "plainchant.data.centres",
    "plainchant.data.tables",
    "plainchant.generation.prompting",
    "plainchant.planning",
)


def examples(module):
    found = doctest.DocTestFinder(exclude_empty=True).find(module, module.__name__)
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_show(name):
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    said = []
    for test in examples(module):
        runner.run(test, out=said.append)
    assert runner.failures == 0, "".join(said)


@pytest.mark.parametrize("name", WHOLE)
def test_every_public_function_of_the_mathematics_has_an_example(name):
    module = importlib.import_module(name)
    having = {test.name.removeprefix(f"{name}.") for test in examples(module)}
    public = {
        own
        for own, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == name and not own.startswith("_")
    }
    assert public - having == set()


@pytest.mark.parametrize("name", SOME)
def test_other_modules_have_examples(name):
    assert len(examples(importlib.import_module(name))) >= 2


def test_a_wrong_example_is_caught():
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    runner.run(wrong, out=lambda _: None)
    assert runner.failures == 1
