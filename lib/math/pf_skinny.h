/* The versions of skinny_f32.c, which is compiled once for each level of the CPU. */
#ifndef PF_SKINNY_H
#define PF_SKINNY_H

#include "base/pf_base.h"

typedef struct {
    int64_t m, n, k;
    const float *x, *w, *bias;
    float *y;
    int64_t ldx, ldw, ldy;
    bool add;
    int64_t step; /* combination: from x[i, l] to x[i, l + 1] */
} pf_skinny;

void pf_skinny_product_plain(const pf_skinny *p);
void pf_skinny_combine_plain(const pf_skinny *p);
#if defined(__x86_64__)
void pf_skinny_product_avx2(const pf_skinny *p);
void pf_skinny_combine_avx2(const pf_skinny *p);
void pf_skinny_product_avx512(const pf_skinny *p);
void pf_skinny_combine_avx512(const pf_skinny *p);
#endif

#endif
