#!/bin/sh
# Builds the simulator and makes a directory in which programs find it as the CUDA libraries:
#
#     tests/cudasim/link.sh DIRECTORY [cargo options, such as --release]
#     LD_LIBRARY_PATH=DIRECTORY program
#
# The dev profile optimises this crate fully, so tests need no other build.
set -eu

if [ $# -lt 1 ]; then
    echo "usage: $0 DIRECTORY [cargo options]" >&2
    exit 2
fi
directory=$1
shift
here=$(cd "$(dirname "$0")" && pwd)

# The last line that names the file is the one that was built or is up to date.
library=$(cargo build --manifest-path "$here/Cargo.toml" -p sconce-cudasim --lib --message-format json-render-diagnostics "$@" |
    sed -n 's/.*"\([^"]*libsconce_cudasim\.so\)".*/\1/p' | tail -n 1)
if [ ! -f "$library" ]; then
    echo "$0: cargo did not say where libsconce_cudasim.so is" >&2
    exit 1
fi

mkdir -p "$directory"
for name in libcuda.so.1 libcuda.so \
    libcublas.so.13 libcublas.so.12 libcublas.so \
    libcublasLt.so.13 libcublasLt.so.12 libcublasLt.so \
    libcurand.so.10 libcurand.so; do
    ln -sf "$library" "$directory/$name"
done
echo "$directory"
