"""Texts from an encoder and decoder, in tokens per second: sonde beside transformers' generate, of the same size.

    python benchmarks/generation.py [--rounds 5] [--tokens 40]

Random weights, width 256, three layers each, 6,200 tokens, 20 tokens in; no text ends by itself, so that both make as
many tokens. Both use caches, greedy and with 4 beams, alone and 16 texts at once, and take turns. Printed as Markdown:
the medians, and the median of the ratios. Process time, as machines are shared: OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from statistics import median

import torch
from transformers import MarianConfig, MarianMTModel

from sonde.contracts.specs import Features, InputSpec, OutputSpec
from sonde.networks.transformer import Transformer, TransformerConfig
from sonde.targets.sequence.decoder import DecoderConfig, build
from sonde.targets.sequence.search import Generate, generate

WIDTH, LAYERS, VOCABULARY, SOURCE, END = 256, 3, 6200, 20, 0


def of_sonde(tokens: int) -> Callable[[torch.Tensor, int], int]:
    spec = InputSpec(layout="tokens", vocabulary=VOCABULARY, size=(SOURCE,))
    config = TransformerConfig(width=WIDTH, layers=LAYERS, positions="sinusoidal")
    encoder = Transformer(config, spec, OutputSpec(per=("position",))).eval()
    decoder = build(DecoderConfig(layers=LAYERS), {"x": WIDTH}, "x", VOCABULARY).eval()
    with torch.no_grad():
        # An end that is never the likeliest: its logit is 0, where the largest of thousands is well above.
        decoder.embedding.weight[END] = 0

    def run(source: torch.Tensor, beams: int) -> int:
        length = torch.full((len(source),), SOURCE)
        features = {"x": Features(values=encoder({"tokens": source, "length": length}))}
        found = generate(decoder, features, Generate(beams=beams), END, tokens, None)
        return sum(map(len, found.tokens))

    return run


def of_transformers(tokens: int) -> Callable[[torch.Tensor, int], int]:
    config = MarianConfig(
        vocab_size=VOCABULARY,
        d_model=WIDTH,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=4 * WIDTH,
        decoder_ffn_dim=4 * WIDTH,
        max_position_embeddings=256,
        pad_token_id=END,
        eos_token_id=END,
        decoder_start_token_id=END,
        forced_eos_token_id=None,
    )
    model = MarianMTModel(config).eval()

    def run(source: torch.Tensor, beams: int) -> int:
        made = model.generate(
            source,
            attention_mask=torch.ones_like(source),
            num_beams=beams,
            do_sample=False,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
        )
        return made[:, 1:].numel()

    return run


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=40)
    given = parser.parse_args()
    torch.manual_seed(0)
    ways = {"sonde": of_sonde(given.tokens), "transformers": of_transformers(given.tokens)}
    print("| beams | texts at once | sonde, tokens/s | transformers, tokens/s | ratio |\n|---|---|---|---|---|")
    for beams in (1, 4):
        for count in (1, 16):
            source = torch.randint(1, VOCABULARY, (count, SOURCE))
            rates: dict[str, list[float]] = {name: [] for name in ways}
            for turn in range(given.rounds + 1):
                for name in ways if turn % 2 else reversed(ways):
                    started = time.process_time()
                    made = ways[name](source, beams)
                    if turn:
                        rates[name].append(made / (time.process_time() - started))
            ratio = median(one / other for one, other in zip(*rates.values(), strict=True))
            shown = " | ".join(f"{median(each):,.0f}" for each in rates.values())
            print(f"| {beams} | {count} | {shown} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()
