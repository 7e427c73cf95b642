/* The thin products' version for the CPU. */
#include "math/pf_lanes.h"
#include "math/pf_ops.h"
#include "math/pf_skinny.h"

#if defined(__x86_64__)
#define RUN(name, p)                                                                               \
    do {                                                                                           \
        int32_t level_ = pf_cpu_level();                                                           \
        if (level_ == PF_CPU_AVX512)                                                               \
            name##_avx512(p);                                                                      \
        else if (level_ == PF_CPU_AVX2)                                                            \
            name##_avx2(p);                                                                        \
        else                                                                                       \
            name##_plain(p);                                                                       \
    } while (0)
#else
#define RUN(name, p) name##_plain(p)
#endif

void pf_skinny_product(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const float *w,
                       int64_t ldw, const float *bias, bool add, float *y, int64_t ldy)
{
    pf_skinny p = {m, n, k, x, w, bias, y, ldx, ldw, ldy, add, 1};
    RUN(pf_skinny_product, &p);
}

void pf_skinny_combine(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *v,
                       int64_t ldv, float *y, int64_t ldy)
{
    pf_skinny p = {m, n, k, a, v, NULL, y, lda, ldv, ldy, false, 1};
    RUN(pf_skinny_combine, &p);
}

void pf_small_product(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, const float *a,
                      int64_t lda, const float *b, int64_t ldb, bool add, float *y, int64_t ldy)
{
    pf_skinny p = {m, n, k, a, b, NULL, y, lda, ldb, ldy, add, 1};
    if (trans_b) {
        RUN(pf_skinny_product, &p);
        return;
    }
    if (trans_a) {
        p.ldx = 1;
        p.step = lda;
    }
    RUN(pf_skinny_combine, &p);
}
