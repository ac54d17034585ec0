"""What a decoder begins with: heads that look where they should, and what codes and steps tell."""

import pytest
import torch
from torch import Tensor

from foldmint_maintenance.training.chain import decoder_init
from foldmint_tokenizer.decoder import Decoder, rotary_angles
from foldmint_tokenizer.sizes import DecoderConfig
from foldmint_tokenizer.vocabulary import BOS, EOS

# Of heads in pairs, on and back; of the blocks one after another.
OFFSETS = [[1, -1, 2, -2, 3, -3], [1, -1, 2, -2, 3, -3], [1, -1, 3, -3, 6, -6], [1, -1, 4, -4, 8, -8]]
LENGTH = 60


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _started(chained: bool = True, seed: int = 0) -> Decoder:
    torch.manual_seed(1)
    decoder = Decoder(DecoderConfig(192, 6, 4, chained))
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    step = turn, torch.tensor([1.0, 2.0, 3.0])
    decoder_init.start(decoder, _random(100, 24), step, torch.Generator().manual_seed(seed))
    return decoder


def _positions_read(decoder: Decoder) -> list[Tensor]:
    """Of each block, the position whose value each head of each token reads: (heads, length)."""
    tokens = torch.randperm(100, generator=torch.Generator().manual_seed(2))[: LENGTH - 2]  # all different
    x = decoder.embed(torch.cat([torch.tensor([BOS]), tokens, torch.tensor([EOS])]))[None]
    rotary = rotary_angles(LENGTH, 32, x)
    positions = []
    for block in decoder.decoder_stack:
        mixed: list[Tensor] = []
        hook = block.attn.out_proj.register_forward_pre_hook(lambda _, inputs, mixed=mixed: mixed.append(inputs[0]))
        values = block.attn.layernorm_qkv(x).chunk(3, -1)[2]
        x = block(x, rotary, None)
        hook.remove()
        read, there = (part.view(LENGTH, 6, 32).transpose(0, 1) for part in (mixed[0], values))
        similarity = torch.nn.functional.normalize(read, dim=-1) @ torch.nn.functional.normalize(there, dim=-1).mT
        positions.append(similarity.argmax(-1))
    return positions


def test_each_head_looks_at_its_offset() -> None:
    with torch.no_grad():
        positions = _positions_read(_started())
    place = torch.arange(LENGTH)
    for read, offsets in zip(positions, OFFSETS, strict=True):
        for head, offset in enumerate(offsets):
            inside = (place + offset >= 0) & (place + offset < LENGTH)
            assert (read[head] == place + offset)[inside].float().mean() > 0.9, (offset, read[head])


def test_codes_that_are_alike_begin_alike() -> None:
    decoder = _started()
    embedding = decoder.embed.weight[:100].detach()
    apart, wanted = torch.pdist(embedding), torch.pdist(_random(100, 24))
    assert torch.corrcoef(torch.stack([apart, wanted]))[0, 1] > 0.99
    # Tokens without a code's vector are noise.
    assert decoder.embed.weight[100:].detach().std() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("chained", [True, False])
def test_a_chained_decoder_begins_with_the_mean_step(chained: bool) -> None:
    head = _started(chained).affine_output_projection
    with torch.no_grad():
        head.proj.weight.zero_()
        moves = head(_random(1, 192))
    if chained:
        torch.testing.assert_close(moves.origin[0], torch.tensor([1.0, 2.0, 3.0]))
        turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
        torch.testing.assert_close(moves.rotation[0], turn, rtol=0, atol=1e-4)
    else:
        assert moves.origin.norm() < 1


def test_a_seed_makes_the_same_start() -> None:
    one, same, other = _started(), _started(), _started(seed=1)
    for name, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[name]), name
    assert not torch.equal(one.embed.weight, other.embed.weight)
