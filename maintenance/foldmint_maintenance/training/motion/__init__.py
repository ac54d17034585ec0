"""Training of models whose codes state motions."""
