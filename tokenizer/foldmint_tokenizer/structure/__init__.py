"""Structure files: reads protein chains as backbones, and writes decoded ones."""
