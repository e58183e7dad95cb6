"""What is computed on a device stays there, and is what the CPU computes."""

import subprocess
import sys

import pytest
import torch

from tests.helpers import second_device
from tests.helpers.device_trials import STUDY_TRIALS, TRIALS

TRIAL = pytest.mark.parametrize("name", list(TRIALS))
ELSEWHERE = pytest.mark.skipif(
    not second_device.is_supported(), reason="This PyTorch lets no device be written in Python."
)
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="There is no GPU.")
# What ends in digits that any rounding changes: where a search went, or which of two nearly equal numbers is larger.
SEARCHED = ("attack", "fit", "explanation", "maps: meaningful-perturbation", "maps: lime")
pytestmark = pytest.mark.filterwarnings("ignore::whyfooled.errors.WhyfooledWarning")


def run_elsewhere(kind, folder):
    """Run trials on a device that refuses what a GPU refuses, in a process that may have one."""
    command = [sys.executable, "-m", "tests.helpers.device_trials", kind, str(folder / "given.pt")]
    subprocess.run(command, check=True, capture_output=True)
    return torch.load(folder / "given.pt")


def assert_it_is_what_the_cpu_gives(there, trial):
    assert not isinstance(there, str), there
    for one, other in zip(there, trial("cpu"), strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    return run_elsewhere("all but studies", tmp_path_factory.mktemp("elsewhere"))


@ELSEWHERE
@TRIAL
def test_no_tensor_of_another_device_is_needed_and_the_numbers_are_the_same(elsewhere, name):
    assert_it_is_what_the_cpu_gives(elsewhere[name], TRIALS[name])


@pytest.fixture(scope="module")
def studied_elsewhere(tmp_path_factory):
    return run_elsewhere("studies", tmp_path_factory.mktemp("elsewhere"))


@pytest.mark.nightly
@ELSEWHERE
@pytest.mark.parametrize("name", list(STUDY_TRIALS))
def test_so_it_is_with_studies(studied_elsewhere, name):
    assert_it_is_what_the_cpu_gives(studied_elsewhere[name], STUDY_TRIALS[name])


@ELSEWHERE
def test_the_second_device_refuses_what_a_gpu_refuses():
    code = """
        import torch
        from tests.helpers import second_device

        second_device.take_in()
        there, here = torch.ones(2, 3).to(second_device.NAME), torch.ones(2, 3)
        for work in (lambda: there + here, lambda: here @ there.T, lambda: torch.cat([there, here]), there.numpy):
            try:
                work()
            except (RuntimeError, TypeError):
                continue
            raise SystemExit("It was not refused.")
        leaf = there.clone().requires_grad_()
        (slope,) = torch.autograd.grad((leaf[:, 1:] ** 2).relu().sum() + 1, leaf)
        assert slope.device.type == second_device.NAME
        assert slope.cpu().tolist() == 2 * [[0, 2, 2]]
    """
    subprocess.run([sys.executable, "-c", "\n".join(line[8:] for line in code.splitlines())], check=True)


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("name", [*TRIALS, *STUDY_TRIALS])
def test_a_gpu_gives_the_same_to_the_bit_each_time_and_what_the_cpu_gives(name):
    trial = (TRIALS | STUDY_TRIALS)[name]
    first, second = trial("cuda"), trial("cuda")
    assert all(torch.equal(one.nan_to_num(), other.nan_to_num()) for one, other in zip(first, second, strict=True))
    if name in TRIALS and not name.startswith(SEARCHED):
        for there, here in zip(first, trial("cpu"), strict=True):
            torch.testing.assert_close(there.cpu(), here, rtol=1e-3, atol=1e-4, equal_nan=True)
