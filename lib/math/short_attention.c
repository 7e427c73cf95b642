/* The version for the CPU. */
#include "math/pf_short_attention.h"
#include "math/pf_lanes.h"

#if defined(__x86_64__)
#define RUN(name, row)                                                                             \
    do {                                                                                           \
        int32_t level_ = pf_cpu_level();                                                           \
        if (level_ == PF_CPU_AVX512)                                                               \
            name##_avx512(row);                                                                    \
        else if (level_ == PF_CPU_AVX2)                                                            \
            name##_avx2(row);                                                                      \
        else                                                                                       \
            name##_plain(row);                                                                     \
    } while (0)
#else
#define RUN(name, row) name##_plain(row)
#endif

void pf_short_attend(const pf_short_row *row) { RUN(pf_short_attend, row); }
void pf_short_attend_backward(const pf_short_row *row) { RUN(pf_short_attend_backward, row); }
