"""The description of a server: model, vocabulary and limits."""

from importlib.metadata import version

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint_server.rpc.responses import reading_name
from foldmint_server.settings import Settings
from foldmint_tokenizer import Limits, vocabulary
from foldmint_tokenizer.model import Model
from foldmint_tokenizer.motion.motion_decoder import MotionDecoderConfig


def limits_of(settings: Settings) -> Limits:
    """What a structure to tokenize may hold."""
    return Limits(settings.max_unpacked_bytes, settings.max_chains, settings.max_residues)


def decode_limits_of(settings: Settings) -> Limits:
    """What a structure to decode may hold."""
    return Limits(settings.max_unpacked_bytes, settings.max_chains, settings.max_detokenize_residues)


def about(model: Model, settings: Settings) -> pb.GetModelResponse:
    """What GetModel answers, but for the codebook, which may change."""
    sizes = model.config
    limits = limits_of(settings)
    return pb.GetModelResponse(
        model=model.name,
        encoder_digest=model.encoder_digest,
        sizes=pb.ModelSizes(
            width=sizes.width, heads=sizes.heads, layers=sizes.layers, out=sizes.out, codes=sizes.codes
        ),
        vocabulary=pb.Vocabulary(
            codes=sizes.codes,
            mask=vocabulary.MASK,
            eos=vocabulary.EOS,
            bos=vocabulary.BOS,
            pad=vocabulary.PAD,
            chainbreak=vocabulary.CHAINBREAK,
        ),
        limits=pb.RequestLimits(
            residues=limits.residues,
            chains=limits.chains,
            unpacked_bytes=limits.unpacked_bytes,
            message_bytes=settings.max_message_bytes,
            detokenize_residues=0 if model.decoder is None else settings.max_detokenize_residues,
        ),
        server_version=version("foldmint"),
        decoder=_about_decoder(model),
        default_reading=reading_name(model.reading),
        motion=None if model.lever is None else pb.MotionInfo(lever=model.lever),
    )


def _about_decoder(model: Model) -> pb.DecoderInfo | None:
    if model.decoder is None:
        return None
    sizes = model.decoder.config
    reads_vectors = isinstance(sizes, MotionDecoderConfig)
    return pb.DecoderInfo(
        digest=model.decoder_digest or "",
        width=sizes.width,
        heads=sizes.heads,
        layers=sizes.layers,
        chained=True if isinstance(sizes, MotionDecoderConfig) else sizes.chained,
        reads_vectors=reads_vectors,
    )
