"""A pretended accelerator for machines without one: tensors are marked as lying there, and mixing the two places fails as it does with CUDA.

Everything is computed on the CPU. A mark belongs to the memory of a tensor (its storage), so views and parameters made from it carry it, too.
`Trainer` moves model and batches by itself: its methods run unwatched, and afterwards the model lies where `Trainer` would have left it.
"""
import sys
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode
from transformers import Trainer

ACCELERATOR, CPU = torch.device("cuda"), torch.device("cpu")
COPIES = {torch.Tensor.copy_, torch.Tensor.data.__set__, torch.Tensor.__setitem__, torch._has_compatible_shallow_copy_type}   # may reach from one place to the other
INDEXING = {torch.Tensor.__getitem__, torch.Tensor.__setitem__}                           # an index may lie on the CPU
MOVES = {torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda}
NAMES = {torch.device, torch._C._nn._parse_to}                                            # speak of places, hold no tensors
TO_NUMPY = {torch.Tensor.numpy, torch.Tensor.__array__}


def tensors_in(value) -> list:
    "The tensors in arguments or results, however they are nested"
    if isinstance(value, torch.Tensor): return [value]
    if isinstance(value, dict): value = value.values()
    elif not isinstance(value, (list, tuple, set)): return []
    return [tensor for part in value for tensor in tensors_in(part)]


def is_marked(tensor) -> bool:
    try: return getattr(tensor.untyped_storage(), "on_accelerator", False)
    except (NotImplementedError, RuntimeError): return False                               # without memory of its own


def mark(tensor, on: bool):
    try: tensor.untyped_storage().on_accelerator = on
    except (NotImplementedError, RuntimeError): pass


def names_accelerator(value) -> bool:
    return isinstance(value, (str, torch.device)) and str(value).startswith("cuda")


def wanted_place(func, args, kwargs) -> torch.device | None:
    "Where `.to(...)`, `.cpu()` and `.cuda()` move to; None when they only change the number format"
    if func is not torch.Tensor.to: return CPU if func is torch.Tensor.cpu else ACCELERATOR
    for value in (*args[1:], kwargs.get("device"), kwargs.get("other")):
        if isinstance(value, torch.Tensor): return ACCELERATOR if is_marked(value) else CPU
        if isinstance(value, torch.device) or (isinstance(value, str) and value[:3] in ("cpu", "cud")):
            return ACCELERATOR if names_accelerator(value) else CPU
    return None


def without_accelerator(value):
    "The same argument for a machine that has none"
    return CPU if names_accelerator(value) else value


class TwoDevices(TorchFunctionMode):
    "Watches every operation of torch for operands from both places"

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in NAMES: return func(*args, **kwargs)
        if func == torch.Tensor.device.__get__ and is_marked(args[0]): return ACCELERATOR
        if func == torch.Tensor.is_cuda.__get__: return is_marked(args[0])
        if func in TO_NUMPY and is_marked(args[0]):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first.")
        if func in MOVES: return self.move(func, args, kwargs)
        self.check(func, args, kwargs)
        made_there = any(map(names_accelerator, (*args, *kwargs.values())))                # torch.ones(3, device="cuda")
        out = func(*map(without_accelerator, args), **{name: without_accelerator(value) for name, value in kwargs.items()})
        given = tensors_in((args, kwargs))
        if func not in COPIES and (made_there or any(map(is_marked, given))):
            for tensor in tensors_in(out): mark(tensor, True)
        return out

    def check(self, func, args, kwargs):
        "Raise as CUDA does when operands lie in two places; numbers (tensors without dimension) may come from the CPU"
        if func in COPIES: return
        operands = tensors_in(args[:1] if func in INDEXING else (args, kwargs))
        if func in INDEXING and not is_marked(args[0]): operands = tensors_in(args)
        there = [is_marked(tensor) for tensor in operands]
        here = [tensor.dim() > 0 for tensor, marked in zip(operands, there) if not marked]
        if any(there) and any(here):
            raise RuntimeError(f"Expected all tensors to be on the same device, but got cuda:0 and cpu in {getattr(func, '__name__', func)}")

    def move(self, func, args, kwargs):
        "A copy with the mark of its new place; nothing is copied when it lies there already"
        place, before = wanted_place(func, args, kwargs), is_marked(args[0])
        if func is torch.Tensor.to:
            args = (args[0], *(without_accelerator(value) for value in args[1:]))
            out = func(*args, **{name: without_accelerator(value) for name, value in kwargs.items()})
        else: out = args[0]
        there = before if place is None else place == ACCELERATOR
        if there != before and out.untyped_storage().data_ptr() == args[0].untyped_storage().data_ptr(): out = out.clone()
        mark(out, there)
        return out


def unwatched(method):
    "A method of `Trainer`: it moves things by itself"
    def run(trainer, *args, **kwargs):
        trainer.args.dataloader_num_workers, trainer.args.dataloader_pin_memory = 0, False
        with torch._C.DisableTorchFunction(): result = method(trainer, *args, **kwargs)
        for tensor in (*trainer.model.parameters(), *trainer.model.buffers()): mark(tensor, not trainer.args.use_cpu)
        return result
    return run


def choose_accelerator(settings): return CPU if settings.device == "cpu" else ACCELERATOR


def choose_fp32(settings, device): return settings.precision if settings.precision != "auto" else "fp32"


@contextmanager
def two_devices():
    "Inside, the settings choose the pretended accelerator, and every operation is watched"
    with ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            if not name.startswith("sentiment_nbdev"): continue
            for attribute, replacement in (("choose_device", choose_accelerator), ("choose_precision", choose_fp32)):
                if hasattr(module, attribute): stack.enter_context(patch.object(module, attribute, replacement))
        for method in ("train", "evaluate", "predict"): stack.enter_context(patch.object(Trainer, method, unwatched(getattr(Trainer, method))))
        stack.enter_context(patch("torch.cuda.get_device_name", lambda device=None: "a pretended accelerator"))
        stack.enter_context(patch("torch.cuda.device_count", lambda: 1))
        stack.enter_context(patch("torch.cuda.reset_peak_memory_stats", lambda device=None: None))
        stack.enter_context(patch("torch.cuda.max_memory_allocated", lambda device=None: 0))
        stack.enter_context(TwoDevices())
        yield
