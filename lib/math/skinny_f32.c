/* Thin products, compiled once for each level of the CPU, with PF_LEVEL its name, and with
 * a * b + c contracted to FMA where the level has it: these kernels live on it. Vectors of WIDTH
 * floats are the compiler's (an extension of both gcc and clang).
 *
 * Product. Each y[i, j] has one vector accumulator: lane l sums the products at k = l, l + WIDTH,
 * l + 2 WIDTH ... A block of ROWS x COLUMNS accumulators stays in registers (1 x SINGLE for a
 * single row), and their horizontal sums are taken together by halves (reduce). Meanwhile the rows
 * of w that come next are asked for: the hardware stops looking ahead at the end of a page. k is
 * cut into parts of PART, so that the rows of w in work stay in the L1 cache while all rows of x
 * pass; the parts are added in their order. Missing rows of w in a block repeat its last one, and
 * the end of a row goes through a padded copy: so all elements are computed the same way, wherever
 * they lie.
 *
 * Combination. Vectors along n, summed over k in order. */
#include "math/pf_skinny.h"
#include "math/pf_vec.h"

#if WIDTH == 16
enum { ROWS = 4, COLUMNS = 4, SPAN = 4 };
#else
enum { ROWS = 4, COLUMNS = 2, SPAN = 2 };
#endif
enum { PART = 512, SINGLE = 8 };

/* ---------------------------------------------------------------- horizontal sums */

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#endif
#ifndef SHUFFLE
typedef int32_t lanes __attribute__((vector_size(WIDTH * sizeof(int32_t))));
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (lanes){__VA_ARGS__})
#endif

/* count vectors from 2 count: each run of lanes of a pair, first of the one, then of the other, is
 * replaced by the sum of its lower and its upper half. */
#define HALVE(count, low, high)                                                                    \
    for (int64_t i_ = 0; i_ < (count); i_++)                                                       \
    v[i_] = SHUFFLE(v[2 * i_], v[2 * i_ + 1], low) + SHUFFLE(v[2 * i_], v[2 * i_ + 1], high)

/* v[0] = the sum of the lanes of v[0], that of v[1] ... that of v[count - 1]; count is WIDTH, or
 * WIDTH / 2 (the upper half of v[0] is then of no use). */
INLINE void reduce(vec *v, int64_t count)
{
#if WIDTH == 16
#define LOW_16 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23
#define HIGH_16 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31
#define LOW_8 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27
#define HIGH_8 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31
#define LOW_4 0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29
#define HIGH_4 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31
#define LOW_2 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define HIGH_2 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
    HALVE(count / 2, LOW_16, HIGH_16);
    HALVE(count / 4, LOW_8, HIGH_8);
#elif WIDTH == 8
#define LOW_8 0, 1, 2, 3, 8, 9, 10, 11
#define HIGH_8 4, 5, 6, 7, 12, 13, 14, 15
#define LOW_4 0, 1, 4, 5, 8, 9, 12, 13
#define HIGH_4 2, 3, 6, 7, 10, 11, 14, 15
#define LOW_2 0, 2, 4, 6, 8, 10, 12, 14
#define HIGH_2 1, 3, 5, 7, 9, 11, 13, 15
    HALVE(count / 2, LOW_8, HIGH_8);
#else
#define LOW_4 0, 1, 4, 5
#define HIGH_4 2, 3, 6, 7
#define LOW_2 0, 2, 4, 6
#define HIGH_2 1, 3, 5, 7
#endif
    HALVE(count * 2 / WIDTH, LOW_4, HIGH_4);
    HALVE(1, LOW_2, HIGH_2);
}

/* ---------------------------------------------------------------- product */

typedef float row_vec __attribute__((vector_size(COLUMNS * sizeof(float))));
/* Where a tile is, and the rows of w that are read next: `streams` of them, from `next` on, are
 * asked for meanwhile. */
typedef struct {
    int64_t i, j, start;
    const float *next;
} place;

/* out: sums of the tile, [rows, COLUMNS]; the first of them are to be written over, or added to y.
 */
INLINE void put(const pf_skinny *p, int64_t rows, int64_t columns, const place *at,
                const float *out)
{
    int64_t valid = p->n - at->j;
    bool adds = at->start > 0 || p->add;
    const float *bias = at->start == 0 && p->bias != NULL ? p->bias + at->j : NULL;
    float *y = p->y + at->i * p->ldy + at->j;
    if (valid >= columns) {
        for (int64_t c = 0; c < columns; c += COLUMNS) {
            row_vec b = {0};
            if (bias != NULL)
                memcpy(&b, bias + c, sizeof b);
            for (int64_t r = 0; r < rows; r++) {
                row_vec base = {0}, o;
                if (adds)
                    memcpy(&base, y + r * p->ldy + c, sizeof base);
                memcpy(&o, out + r * columns + c, sizeof o);
                base = base + b + o;
                memcpy(y + r * p->ldy + c, &base, sizeof base);
            }
        }
        return;
    }
    for (int64_t r = 0; r < rows; r++, y += p->ldy)
        for (int64_t c = 0; c < columns && c < valid; c++)
            y[c] = (adds ? y[c] : 0.0f) + (bias != NULL ? bias[c] : 0.0f) + out[r * columns + c];
}

INLINE void product_tile(const pf_skinny *p, int64_t rows, int64_t columns, int64_t streams,
                         const place *at)
{
    enum { MOST = ROWS * COLUMNS > SINGLE ? ROWS * COLUMNS : SINGLE };
    const float *x[ROWS], *w[MOST], *next = at->next;
    vec sum[MOST + WIDTH] = {{0}};
    int64_t k = p->k - at->start < PART ? p->k - at->start : PART;
    int64_t valid = p->n - at->j < columns ? p->n - at->j : columns, ldw = p->ldw;
    for (int64_t r = 0; r < rows; r++)
        x[r] = p->x + (at->i + r) * p->ldx + at->start;
    for (int64_t c = 0; c < columns; c++)
        w[c] = p->w + (at->j + (c < valid ? c : valid - 1)) * ldw + at->start;
    int64_t l = 0;
    for (; l + WIDTH <= k; l += WIDTH) {
        vec b[MOST];
        for (int64_t s = 0; s < streams; s++)
            __builtin_prefetch(next + s * ldw + l, 0, 3);
        for (int64_t c = 0; c < columns; c++)
            b[c] = LOAD(w[c] + l);
        for (int64_t r = 0; r < rows; r++) {
            vec a = LOAD(x[r] + l);
            for (int64_t c = 0; c < columns; c++)
                sum[r * columns + c] += a * b[c];
        }
    }
    if (l < k) {
        size_t left = (size_t)(k - l) * sizeof(float);
        vec a = {0}, b[MOST];
        for (int64_t c = 0; c < columns; c++) {
            b[c] = a;
            memcpy(&b[c], w[c] + l, left);
        }
        for (int64_t r = 0; r < rows; r++) {
            memcpy(&a, x[r] + l, left);
            for (int64_t c = 0; c < columns; c++)
                sum[r * columns + c] += a * b[c];
        }
    }
    float out[MOST + WIDTH];
    for (int64_t s = 0; s < rows * columns; s += WIDTH) {
        reduce(sum + s, 2 * (rows * columns - s) <= WIDTH ? WIDTH / 2 : WIDTH);
        memcpy(out + s, sum + s, WIDTH * sizeof(float));
    }
    put(p, rows, columns, at, out);
}

/* Alone in their functions, so that the accumulators of each have the registers for themselves. */
#define TILE(name, rows, columns, streams)                                                         \
    static __attribute__((noinline)) void name(const pf_skinny *p, const place *at)                \
    {                                                                                              \
        product_tile(p, rows, columns, streams, at);                                               \
    }
TILE(single, 1, SINGLE, 0)
TILE(single_ahead, 1, SINGLE, SINGLE)
TILE(tile_of_1, 1, COLUMNS, 0)
TILE(tile_of_2, 2, COLUMNS, 0)
TILE(tile_of_3, 3, COLUMNS, 0)
TILE(tile_of_4, 4, COLUMNS, 0)
TILE(tile_of_2_ahead, 2, COLUMNS, COLUMNS)
TILE(tile_of_3_ahead, 3, COLUMNS, COLUMNS)
TILE(tile_of_4_ahead, 4, COLUMNS, COLUMNS)
TILE(tile_of_4_ahead_1, 4, COLUMNS, 1)

/* A single row: nothing but reading w. */
static void product_of_one(const pf_skinny *p)
{
    for (int64_t j = 0; j < p->n; j += SINGLE) {
        bool next = j + 2 * SINGLE <= p->n;
        for (int64_t start = 0; start == 0 || start < p->k; start += PART) {
            place at = {0, j, start, p->w + (j + SINGLE) * p->ldw + start};
            (next ? single_ahead : single)(p, &at);
        }
    }
}

/* The tiles of one block of columns and one part of k. While they work, the next block's rows are
 * asked for: by the only tile, or one by each of the first. */
static void product_of_block(const pf_skinny *p, place at, bool next)
{
    if (next && p->m <= ROWS) {
        (p->m == 2 ? tile_of_2_ahead : p->m == 3 ? tile_of_3_ahead : tile_of_4_ahead)(p, &at);
        return;
    }
    for (; at.i + ROWS <= p->m; at.i += ROWS, at.next += p->ldw)
        (next && at.i < ROWS * COLUMNS ? tile_of_4_ahead_1 : tile_of_4)(p, &at);
    int64_t left = p->m - at.i;
    if (left > 0)
        (left == 1 ? tile_of_1 : left == 2 ? tile_of_2 : tile_of_3)(p, &at);
}

void JOIN(pf_skinny_product, PF_LEVEL)(const pf_skinny *p)
{
    if (p->m < 2) {
        if (p->m == 1)
            product_of_one(p);
        return;
    }
    for (int64_t j = 0; j < p->n; j += COLUMNS)
        for (int64_t start = 0; start == 0 || start < p->k; start += PART)
            product_of_block(p, (place){0, j, start, p->w + (j + COLUMNS) * p->ldw + start},
                             j + 2 * COLUMNS <= p->n);
}

/* ---------------------------------------------------------------- combination */

/* Rows i .. i + rows - 1, `span` vectors from column j on; of the last, `width` elements. */
INLINE void combine_tile(const pf_skinny *p, int64_t rows, int64_t span, int64_t i, int64_t j,
                         int64_t width)
{
    vec sum[ROWS * SPAN] = {{0}};
    const float *a = p->x + i * p->ldx, *v = p->w + j;
    for (int64_t l = 0; l < p->k; l++, v += p->ldw) {
        vec b[SPAN];
        if (width < WIDTH) {
            b[0] = (vec){0};
            memcpy(&b[0], v, (size_t)width * sizeof(float));
        } else
            for (int64_t s = 0; s < span; s++)
                b[s] = LOAD(v + s * WIDTH);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t s = 0; s < span; s++)
                sum[r * span + s] += a[r * p->ldx + l * p->step] * b[s];
    }
    for (int64_t r = 0; r < rows; r++) {
        float *y = p->y + (i + r) * p->ldy + j;
        if (width < WIDTH) {
            vec base = {0};
            if (p->add)
                memcpy(&base, y, (size_t)width * sizeof(float));
            base += sum[r];
            memcpy(y, &base, (size_t)width * sizeof(float));
        } else
            for (int64_t s = 0; s < span; s++)
                STORE(y + s * WIDTH,
                      p->add ? LOAD(y + s * WIDTH) + sum[r * span + s] : sum[r * span + s]);
    }
}

INLINE void combine_rows(const pf_skinny *p, int64_t rows, int64_t i)
{
    int64_t j = 0;
    for (; j + SPAN * WIDTH <= p->n; j += SPAN * WIDTH)
        combine_tile(p, rows, SPAN, i, j, WIDTH);
    for (; j + WIDTH <= p->n; j += WIDTH)
        combine_tile(p, rows, 1, i, j, WIDTH);
    if (j < p->n)
        combine_tile(p, rows, 1, i, j, p->n - j);
}

void JOIN(pf_skinny_combine, PF_LEVEL)(const pf_skinny *p)
{
    int64_t i = 0;
    for (; i + ROWS <= p->m; i += ROWS)
        combine_rows(p, ROWS, i);
    for (; i < p->m; i++)
        combine_rows(p, 1, i);
}
