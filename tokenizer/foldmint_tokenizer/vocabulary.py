"""Token ids: the codes first, then ESM3's special tokens."""

CODES = 4096
"""Number of codes of the published vocabulary: tokens 0 to 4095."""

MASK = 4096
EOS = 4097
BOS = 4098
PAD = 4099
CHAINBREAK = 4100
