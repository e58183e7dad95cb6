"""Hidden units: what they detect, what an attack does to them, and a classifier without some of them."""
