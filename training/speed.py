"""What a device could do at most, and the share of it that a training uses."""

PEAKS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989.4e12,
    "H200": 989.4e12,
    "B200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
}
"""bfloat16 FLOP/s without sparsity by a part of the device's name, the first that fits (NVIDIA's data sheets)."""


def peak_flops(device: str) -> float | None:
    """FLOP/s of a device by its name; None where nobody has told, as for CPUs."""
    return next((flops for name, flops in PEAKS.items() if name in device), None)


def mfu(tokens_per_second: float, flops_per_token: float, devices: list[str]) -> float | None:
    """Model FLOPs utilisation: FLOPs of the model alone over the devices' peaks (Chowdhery et al. 2022, appendix B).

    A token costs 6 FLOPs per parameter of a matrix product, the output matrix included, and 6 layers heads head_dim
    seq_len for causal attention, half counted; what is computed again does not count. None without known peaks.
    """
    peaks = [peak_flops(device) for device in devices]
    known = [peak for peak in peaks if peak is not None]
    return tokens_per_second * flops_per_token / sum(known) if known and len(known) == len(peaks) else None
