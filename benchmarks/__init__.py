"""Benchmarks: ``python -m benchmarks NAME``. Everything that is compared runs side by side in one process."""
