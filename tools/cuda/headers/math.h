// The parts of the C library's header that candle's kernels use; the functions are built into NVRTC.
#pragma once

#define INFINITY __int_as_float(0x7F800000)
#define M_2_SQRTPI 1.12837916709551257390
#define M_SQRT1_2 0.70710678118654752440
