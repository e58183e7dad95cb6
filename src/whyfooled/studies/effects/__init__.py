"""Studies of what perturbations do (Xu et al. 2019)."""
