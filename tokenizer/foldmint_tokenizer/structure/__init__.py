"""Structure files: reading of protein chains as backbones, and writing of decoded ones."""
