"""Plain functions on tensors: no model, no file."""
