"""The arithmetic in which torch multiplies: the network's dtype, TF32 or bfloat16."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from harness.contract import NetworkSpec
from harness.errors import RefusedError, UnavailableError
from implementations.shared.device import refuse_tf32_off_gpu


class Precision:
    """One precision mode; weights, gradients and the optimiser stay float32.

    `highest` multiplies in the network's dtype, `tf32` rounds what enters a product to
    11 significant bits, `bf16` lets `torch.autocast` choose what it computes in
    bfloat16, 8 significant bits.

    Raises:
        RefusedError: If the mode is unknown, or is not one of the device or dtype.
    """

    def __init__(self, spec: NetworkSpec, device: torch.device) -> None:
        mode = spec.precision
        if mode not in ("highest", "tf32", "bf16"):
            raise RefusedError(
                f"torch computes at highest, tf32 or bf16, not at {mode}"
            )
        refuse_tf32_off_gpu(mode, str(device))
        if mode != "highest" and spec.dtype != "float32":
            raise RefusedError(
                f"{mode} is a precision of float32 networks, not of {spec.dtype}"
            )
        self._mode, self._device = mode, device

    def check(self, layer: nn.Module) -> None:
        """Try a layer of torch's own, which has kernels of its own.

        Raises:
            UnavailableError: If it has no kernel for the precision on this device.
        """
        if self._mode == "highest" or not isinstance(layer, nn.RNNBase):
            return
        x = torch.zeros(1, 1, layer.input_size, device=self._device)
        try:
            with torch.no_grad(), self.forward():
                layer(x)
        except RuntimeError as error:
            name, reason = type(layer).__name__, str(error).partition(".")[0]
            raise UnavailableError(
                "torch",
                f"torch {torch.__version__} has no nn.{name} for {self._mode} on "
                f"this {self._device.type}: {reason}",
            ) from error

    def forward(self) -> AbstractContextManager[object]:
        """Return the context of a forward pass; the backward pass needs none.

        It also sets the switches that all networks of the process share.
        """
        if self._device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = self._mode == "tf32"
            torch.backends.cudnn.allow_tf32 = self._mode == "tf32"
        if self._mode == "bf16":
            return torch.autocast(self._device.type, torch.bfloat16)
        return nullcontext()
