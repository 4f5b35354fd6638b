"""How many operations a token costs, and how many a device could do: together, MFU.

Per token, forward and backward, d the width, p the share of masked tokens:

    matrices     6 x parameters of the layers' matrices
    attention    12 d (global layers x n + local layers x min(n, 2 window + 1))
    head         6 p (d x vocabulary, + d x d where it is dense)

n is the number of tokens that a token sees in a global layer. For documents of several lengths it
is E[length^2] / E[length], because a long document has more tokens, and each of them sees more.
Embeddings, norms and activations are not counted, nor is what masked_queries_only saves or
checkpoint_activations does twice: these are the operations of the plain model, so that figures
compare between settings (PaLM's definition of MFU, arXiv:2204.02311, appendix B). Windows are not
cut at the ends of a document.
"""

from tokenmill.training.encoder_config import EncoderConfig

PEAK_TFLOPS = {
    "H200": 989,
    "H200 NVL": 835,
    "GH200": 989,
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "H800": 989,
    "H20": 148,
    "B200": 2250,
    "A100": 312,
    "A800": 312,
    "A30": 165,
    "A40": 150,
    "L40S": 362,
    "L4": 121,
    "MI250X": 191.5,
    "MI300X": 1307,
    "MI325X": 1307,
}
"""Dense bfloat16 products with sums in 32 bits, 10^12 operations a second, by the words of the
device's name. Source: the makers' data sheets, half of what they give for sparse matrices; MI250X
is two devices, each with half."""


def flops_of_token(config: EncoderConfig, *, mask_rate: float, seen: float) -> float:
    """Operations of a token's forward and backward pass.

    Args:
        mask_rate: share of the tokens that are predicted.
        seen: tokens that a token sees in a layer without window: E[length^2] / E[length].
    """
    width, layers = config.width, config.layers
    matrices = 2 if config.feed_forward == "gelu" else 3
    parameters = layers * (4 * width**2 + matrices * width * config.hidden)
    num_global = sum(config.is_global(layer) for layer in range(layers))
    seen_locally = min(seen, 2 * config.window + 1)
    attention = width * (num_global * seen + (layers - num_global) * seen_locally)
    head = width * config.vocab_size + (width**2 if config.head == "dense" else 0)
    return 6 * parameters + 12 * attention + 6 * mask_rate * head


def peak_flops(device_name: str, dtype: str) -> float | None:
    """Operations a second that a device could do at most; None where it is not known.

    Args:
        device_name: what torch.cuda.get_device_name says, e.g. "NVIDIA H200". A slice of a device
            (MIG) has no known peak.
        dtype: of the products; only "bfloat16" has known peaks.
    """
    words = set(device_name.replace("-", " ").split())
    # The longest name first: an H100 PCIe is none of the faster H100.
    for name in sorted(PEAK_TFLOPS, key=len, reverse=True):
        if dtype == "bfloat16" and "MIG" not in words and set(name.split()) <= words:
            return PEAK_TFLOPS[name] * 1e12
    return None
