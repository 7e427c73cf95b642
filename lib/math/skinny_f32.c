/* Thin products, compiled once for each level of the CPU, with PF_LEVEL its name, and with
 * a * b + c contracted to FMA where the level has it: these kernels live on it. Vectors of WIDTH
 * floats are the compiler's (an extension of both gcc and clang).
 *
 * Product. Each y[i, j] has one vector accumulator: lane l sums the products at k = l, l + WIDTH,
 * l + 2 WIDTH ... A block of ROWS x COLUMNS accumulators stays in registers, and their horizontal
 * sums are taken together by halves (reduce). k is cut into parts of PART, so that the rows of w in
 * work stay in the L1 cache while all rows of x pass; the parts are added in their order. Missing
 * rows of w in a block repeat its last one, and the end of a row goes through a padded copy: so all
 * elements are computed the same way, wherever they lie.
 *
 * Combination. Vectors along n, summed over k in order. */
#include "math/pf_skinny.h"

#if defined(__AVX512F__)
#define WIDTH 16
enum { ROWS = 4, COLUMNS = 4, SPAN = 4 };
#elif defined(__AVX__)
#define WIDTH 8
enum { ROWS = 4, COLUMNS = 2, SPAN = 2 };
#else
#define WIDTH 4
enum { ROWS = 4, COLUMNS = 2, SPAN = 2 };
#endif
enum { PART = 512 };

typedef float vec __attribute__((vector_size(WIDTH * sizeof(float))));
typedef float vec_anywhere __attribute__((vector_size(WIDTH * sizeof(float)), aligned(4)));

#define INLINE static inline __attribute__((always_inline))
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define LOAD(pointer) (*(const vec_anywhere *)(pointer))
#define STORE(pointer, value) (*(vec_anywhere *)(pointer) = (value))

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

/* v[0] = the sum of the lanes of v[0], that of v[1] ... that of v[WIDTH - 1]. */
INLINE void reduce(vec *v)
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
    HALVE(8, LOW_16, HIGH_16);
    HALVE(4, LOW_8, HIGH_8);
#elif WIDTH == 8
#define LOW_8 0, 1, 2, 3, 8, 9, 10, 11
#define HIGH_8 4, 5, 6, 7, 12, 13, 14, 15
#define LOW_4 0, 1, 4, 5, 8, 9, 12, 13
#define HIGH_4 2, 3, 6, 7, 10, 11, 14, 15
#define LOW_2 0, 2, 4, 6, 8, 10, 12, 14
#define HIGH_2 1, 3, 5, 7, 9, 11, 13, 15
    HALVE(4, LOW_8, HIGH_8);
#else
#define LOW_4 0, 1, 4, 5
#define HIGH_4 2, 3, 6, 7
#define LOW_2 0, 2, 4, 6
#define HIGH_2 1, 3, 5, 7
#endif
    HALVE(2, LOW_4, HIGH_4);
    HALVE(1, LOW_2, HIGH_2);
}

/* ---------------------------------------------------------------- product */

/* Rows i .. i + rows - 1, columns j .. j + columns - 1 (those that there are), k from `start` on.
 */
INLINE void product_tile(const pf_skinny *p, int64_t rows, int64_t columns, int64_t i, int64_t j,
                         int64_t start)
{
    enum { MOST = 16 };
    const float *x[MOST], *w[MOST];
    vec sum[MOST] = {{0}};
    int64_t k = p->k - start < PART ? p->k - start : PART;
    int64_t valid = p->n - j < columns ? p->n - j : columns;
    for (int64_t r = 0; r < rows; r++)
        x[r] = p->x + (i + r) * p->ldx + start;
    for (int64_t c = 0; c < columns; c++)
        w[c] = p->w + (j + (c < valid ? c : valid - 1)) * p->ldw + start;
    int64_t l = 0;
    for (; l + WIDTH <= k; l += WIDTH) {
        vec b[MOST];
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
    float out[MOST];
    for (int64_t s = 0; s < rows * columns; s += WIDTH) {
        reduce(sum + s);
        memcpy(out + s, sum + s, WIDTH * sizeof(float));
    }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < valid; c++) {
            float *y = p->y + (i + r) * p->ldy + j + c;
            float base = start > 0 || p->add ? *y : 0.0f;
            if (start == 0 && p->bias != NULL)
                base += p->bias[j + c];
            *y = base + out[r * columns + c];
        }
}

static void tile_of_4(const pf_skinny *p, int64_t i, int64_t j, int64_t start)
{
    product_tile(p, ROWS, COLUMNS, i, j, start);
}

static void tile_of_3(const pf_skinny *p, int64_t i, int64_t j, int64_t start)
{
    product_tile(p, 3, COLUMNS, i, j, start);
}

static void tile_of_2(const pf_skinny *p, int64_t i, int64_t j, int64_t start)
{
    product_tile(p, 2, COLUMNS, i, j, start);
}

static void tile_of_1(const pf_skinny *p, int64_t i, int64_t j, int64_t start)
{
    product_tile(p, 1, COLUMNS, i, j, start);
}

void JOIN(pf_skinny_product, PF_LEVEL)(const pf_skinny *p)
{
    for (int64_t j = 0; j < p->n; j += COLUMNS)
        for (int64_t start = 0; start == 0 || start < p->k; start += PART) {
            int64_t i = 0;
            for (; i + ROWS <= p->m; i += ROWS)
                tile_of_4(p, i, j, start);
            if (p->m - i == 3)
                tile_of_3(p, i, j, start);
            else if (p->m - i == 2)
                tile_of_2(p, i, j, start);
            else if (p->m - i == 1)
                tile_of_1(p, i, j, start);
        }
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
                sum[r * span + s] += a[r * p->ldx + l] * b[s];
    }
    for (int64_t r = 0; r < rows; r++) {
        float *y = p->y + (i + r) * p->ldy + j;
        if (width < WIDTH)
            memcpy(y, &sum[r], (size_t)width * sizeof(float));
        else
            for (int64_t s = 0; s < span; s++)
                STORE(y + s * WIDTH, sum[r * span + s]);
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
