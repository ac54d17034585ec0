"""Training of models whose codes encode motions along the chain."""
