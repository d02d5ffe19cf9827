"""Networks that padrewrite is tested on, and an independent counter of their convolutions."""
