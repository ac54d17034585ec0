"""Codebook repair: detect dead codes, reset, fine-tune, gate, publish and roll out."""
