"""How a backward pass is given other rules than the gradient's."""
