"""Fixtures that several files share."""


def pytest_configure(config):
    # Here and not in pyproject.toml: naming the class there would import the package before its types can be checked.
    config.addinivalue_line("filterwarnings", "error::whyfooled.errors.WhyfooledWarning")
