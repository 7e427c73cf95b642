/* Alone in its file, so that a test can put its own in its place and try every level. */
#include "math/pf_lanes.h"

int32_t pf_cpu_level(void)
{
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return PF_CPU_PLAIN;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return PF_CPU_AVX512;
    return PF_CPU_AVX2;
#else
    return PF_CPU_PLAIN;
#endif
}
