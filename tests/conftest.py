"""Fixtures that several files share, and one thread for each process."""

import ast
import gc
import os

import pytest
from jaxtyping._import_hook import JaxtypingTransformer

# Looking through all that is imported for what can be freed takes a quarter of the time that collecting the tests does.
gc.disable()

# The tests' models are so small that sharing a layer between threads takes longer than computing it. Read when torch is
# first imported, by what the tests start as well.
os.environ["OMP_NUM_THREADS"] = "1"

_check_types = JaxtypingTransformer.visit_FunctionDef


def _check_types_outside(self, node):
    """Leave functions inside others alone: their checks would be written anew each time that the outer one is called.

    That takes longer than all the rest; what they are given and return goes through functions that are checked.
    """
    return node if any(isinstance(parent, ast.FunctionDef) for parent in self._parents) else _check_types(self, node)


JaxtypingTransformer.visit_FunctionDef = _check_types_outside

# So that an assertion in a helper says as much as one in a test.
pytest.register_assert_rewrite("tests.helpers")


def pytest_configure(config):
    # Here and not in pyproject.toml: naming the class there would import the package before its types can be checked.
    config.addinivalue_line("filterwarnings", "error::whyfooled.errors.WhyfooledWarning")
    # Of nearly every module that a test writes into a file; the tests about it listen to it.
    config.addinivalue_line("filterwarnings", "ignore:.* does not say how it wants photographs")


def pytest_collection_finish(session):
    # What is there now stays, and is not looked through again.
    gc.freeze()
    gc.enable()


def pytest_unconfigure(config):
    # Otherwise what is written in C++ reports as lost what Python never gave back.
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    # Not at the top: the process that only hands out the tests needs no torch.
    import torch

    torch.set_num_threads(1)
