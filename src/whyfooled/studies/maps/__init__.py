"""Studies of saliency maps (Gu & Tresp 2019)."""
