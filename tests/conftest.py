"""Fixtures that several files share."""

import pytest
import torch

# So that an assertion in a helper says as much as one in a test.
pytest.register_assert_rewrite("tests.helpers")


def pytest_configure(config):
    # The tests' models are so small that sharing a layer between threads takes longer than computing it.
    torch.set_num_threads(1)
    # Here and not in pyproject.toml: naming the class there would import the package before its types can be checked.
    config.addinivalue_line("filterwarnings", "error::whyfooled.errors.WhyfooledWarning")
