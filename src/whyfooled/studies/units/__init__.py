"""Studies of hidden units (Xu et al. 2019)."""
