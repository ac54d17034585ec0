"""Token ids: the codes, 0 to 4095, then ESM3's special tokens."""

CODES = 4096
MASK = 4096
EOS = 4097
BOS = 4098
PAD = 4099
CHAINBREAK = 4100

SIZE = 4101
"""Number of token ids."""
