"""NVIDIA's compiler at run time (NVRTC), one pinned version from PyPI in an environment of its own below target/."""

import ctypes
import subprocess
import sys
import venv
from pathlib import Path

PACKAGES = ["nvidia-cuda-nvrtc-cu12==12.4.127", "nvidia-cuda-runtime-cu12==12.4.127"]
"""12.4 writes PTX 8.4, which drivers from 550 on take; the runtime brings cuda_fp16.h and the like."""
ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / "target" / "nvrtc-12.4.127"


class Nvrtc:
    """Compiles CUDA C++ to PTX, the same bytes each time. Needs no toolkit and no C++ compiler."""

    def __init__(self):
        nvidia = packages()
        self.library = ctypes.CDLL(str(nvidia / "cuda_nvrtc" / "lib" / "libnvrtc.so.12"))
        self.library.nvrtcGetErrorString.restype = ctypes.c_char_p
        self.include = nvidia / "cuda_runtime" / "include"

    def compile(self, source: Path, capability: int, include: list[Path]) -> str:
        options = [f"--gpu-architecture=compute_{capability}", "--std=c++17", "--device-as-default-execution-space"]
        options += [f"--include-path={path}" for path in [*include, self.include]]
        program = ctypes.c_void_p()
        self.call("nvrtcCreateProgram", ctypes.byref(program), source.read_bytes(), source.name.encode(), 0, None, None)
        try:
            arguments = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
            if self.library.nvrtcCompileProgram(program, len(options), arguments) != 0:
                sys.exit(f"{source} for compute_{capability}:\n{self.read('nvrtcGetProgramLog', program)}")
            return self.read("nvrtcGetPTX", program)
        finally:
            self.call("nvrtcDestroyProgram", ctypes.byref(program))

    def read(self, name: str, program: ctypes.c_void_p) -> str:
        size = ctypes.c_size_t()
        self.call(f"{name}Size", program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        self.call(name, program, text)
        return text.value.decode()

    def call(self, name: str, *arguments) -> None:
        result = getattr(self.library, name)(*arguments)
        if result != 0:
            sys.exit(f"{name}: {self.library.nvrtcGetErrorString(result).decode()}")


def packages() -> Path:
    """The folder that holds the pinned packages, installed where they are missing."""
    installed = ENVIRONMENT / "installed"
    if not installed.exists():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        pip = [ENVIRONMENT / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, *PACKAGES], check=True)
        installed.touch()
    return next(ENVIRONMENT.glob("lib/python3*/site-packages/nvidia"))
