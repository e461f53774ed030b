"""How good a model is, measured: on recorded people and on simulated ones."""
