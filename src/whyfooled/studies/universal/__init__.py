"""Studies of universal perturbations (Ehsani Oskouie & Farnia 2022)."""
