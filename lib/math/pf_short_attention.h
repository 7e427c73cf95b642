/* Attention of one row to few keys, softmax and all, where a call for each product would cost more
 * than the products (short_attention.c; short_attention_f32.c is compiled once for each level of
 * the CPU). */
#ifndef PF_SHORT_ATTENTION_H
#define PF_SHORT_ATTENTION_H

#include "base/pf_base.h"

enum {
    PF_SHORT_KEYS = 64,  /* of a row, at most */
    PF_SHORT_BLOCKS = 3, /* in which they lie */
    PF_SHORT_WIDTH = 256 /* numbers of a head, at most */
};

/* n keys and values, `stride` floats from one to the next. */
typedef struct {
    int64_t n, stride;
    const float *keys, *values;
    float *dkeys, *dvalues; /* backward alone */
} pf_short_block;

typedef struct {
    int64_t width;
    float scale;
    const float *q; /* [width] */
    int64_t n_blocks;
    pf_short_block block[PF_SHORT_BLOCKS];
    float *y; /* [width], forward */
    const float *dy;
    float *dq; /* [width] */
} pf_short_row;

/* y = sum_j p_j v_j, p = softmax(scale q . k_j) over the keys of all blocks. A score that is NaN or
 * +infinity makes y NaN; one of -infinity has p = 0; where all are, y = 0. */
void pf_short_attend(const pf_short_row *row);

/* dv_j += p_j dy, ds_j = scale p_j (dp_j - sum p dp) with dp_j = dy . v_j, dq += sum_j ds_j k_j,
 * dk_j += ds_j q. */
void pf_short_attend_backward(const pf_short_row *row);

void pf_short_attend_plain(const pf_short_row *row);
void pf_short_attend_backward_plain(const pf_short_row *row);
#if defined(__x86_64__)
void pf_short_attend_avx2(const pf_short_row *row);
void pf_short_attend_backward_avx2(const pf_short_row *row);
void pf_short_attend_avx512(const pf_short_row *row);
void pf_short_attend_backward_avx512(const pf_short_row *row);
#endif

#endif
