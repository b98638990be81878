# Commands that need more than cargo; `tests/run` has the checks of every change.

# Runs every CUDA test on the first GPU of this machine, compares it with the CPU, and writes a dated report into benches/gpu/.
gpu-check *models:
    benches/gpu/check {{models}}
