"""Random networks, drawn by a seed or by hypothesis, and the check that everything promised holds on them."""
