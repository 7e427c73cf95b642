/* The thin products against plain double, and an element's bits computed alone. */
#include "levels.h"

#include "math/pf_ops.h"

static void check_product(int64_t m, int64_t n, int64_t k, bool add, bool with_bias)
{
    int64_t ldx = k + 1, ldw = k + 3, ldy = n + 2;
    float *x = floats(m * ldx, 1, 1), *w = floats(n * ldw, 1, 2), *before = floats(m * ldy, 1, 3);
    float *bias = with_bias ? floats(n, 1, 4) : NULL;
    EACH_LEVEL
    {
        float *y = copy_of(before, m * ldy), *alone = copy_of(before, m * ldy);
        pf_skinny_product(m, n, k, x, ldx, w, ldw, bias, add, y, ldy);
        check_guard(y, m * ldy);
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < ldy; j++) {
                double want = (double)before[i * ldy + j], size = 0;
                if (j < n) {
                    want = (add ? want : 0) + (with_bias ? (double)bias[j] : 0);
                    for (int64_t l = 0; l < k; l++) {
                        double term = (double)x[i * ldx + l] * (double)w[j * ldw + l];
                        want += term;
                        size += fabs(term);
                    }
                }
                NEAR((double)y[i * ldy + j], want, 3e-7, 1 + size);
            }
        /* other cuts of rows and columns */
        int64_t cut = n / 3;
        for (int64_t i = 0; i < m; i += 3) {
            int64_t rows = m - i < 3 ? m - i : 3;
            pf_skinny_product(rows, cut, k, x + i * ldx, ldx, w, ldw, bias, add, alone + i * ldy,
                              ldy);
            pf_skinny_product(rows, n - cut, k, x + i * ldx, ldx, w + cut * ldw, ldw,
                              with_bias ? bias + cut : NULL, add, alone + i * ldy + cut, ldy);
        }
        SAME_BITS(alone, y, m * ldy);
        free(y), free(alone);
    }
    free(x), free(w), free(before), free(bias);
}

START_TEST(product)
{
    static const int64_t ks[] = {0, 1, 15, 16, 17, 63, 64, 65, 127, 512, 513, 1100};
    static const int64_t ms[] = {0, 1, 2, 3, 4, 5, 7, 25};
    static const int64_t ns[] = {0, 1, 2, 3, 5, 16, 18, 33};
    for (int a = 0; a < 12; a++)
        for (int b = 0; b < 8; b++)
            for (int c = 0; c < 8; c++)
                check_product(ms[b], ns[c], ks[a], (a + b + c) % 2, (a + b + c) % 3 == 0);
    check_product(64, 130, 70, true, true);
}
END_TEST

static void check_combine(int64_t m, int64_t n, int64_t k)
{
    int64_t lda = k + 1, ldv = n + 3, ldy = n + 2;
    float *a = floats(m * lda, 1, 1), *v = floats(k * ldv, 1, 2), *before = floats(m * ldy, 1, 3);
    EACH_LEVEL
    {
        float *y = copy_of(before, m * ldy), *alone = copy_of(before, m * ldy);
        pf_skinny_combine(m, n, k, a, lda, v, ldv, y, ldy);
        check_guard(y, m * ldy);
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < ldy; j++) {
                double want = j < n ? 0 : (double)before[i * ldy + j], size = 0;
                for (int64_t l = 0; l < k && j < n; l++) {
                    double term = (double)a[i * lda + l] * (double)v[l * ldv + j];
                    want += term;
                    size += fabs(term);
                }
                NEAR((double)y[i * ldy + j], want, 1e-6, 1e-3 + size);
            }
        int64_t cut = n / 3;
        for (int64_t i = 0; i < m; i++) {
            pf_skinny_combine(1, cut, k, a + i * lda, lda, v, ldv, alone + i * ldy, ldy);
            pf_skinny_combine(1, n - cut, k, a + i * lda, lda, v + cut, ldv, alone + i * ldy + cut,
                              ldy);
        }
        SAME_BITS(alone, y, m * ldy);
        free(y), free(alone);
    }
    free(a), free(v), free(before);
}

START_TEST(combination)
{
    static const int64_t ks[] = {0, 1, 7, 65, 300};
    static const int64_t ms[] = {0, 1, 3, 4, 6, 25};
    static const int64_t ns[] = {0, 1, 15, 16, 33, 64, 80, 130};
    for (int a = 0; a < 5; a++)
        for (int b = 0; b < 6; b++)
            for (int c = 0; c < 8; c++)
                check_combine(ms[b], ns[c], ks[a]);
}
END_TEST

/* op(a) [m, k] op(b) [k, n] in every form, written and added. */
static void check_small(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, bool add)
{
    int64_t lda = (trans_a ? m : k) + 1, ldb = (trans_b ? k : n) + 3, ldy = n + 2;
    float *a = floats((trans_a ? k : m) * lda, 1, 1), *b = floats((trans_b ? n : k) * ldb, 1, 2);
    float *before = floats(m * ldy, 1, 3);
    EACH_LEVEL
    {
        float *y = copy_of(before, m * ldy);
        pf_small_product(trans_a, trans_b, m, n, k, a, lda, b, ldb, add, y, ldy);
        check_guard(y, m * ldy);
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < ldy; j++) {
                double want = j < n && !add ? 0 : (double)before[i * ldy + j], size = 0;
                for (int64_t l = 0; l < k && j < n; l++) {
                    double term = (double)a[trans_a ? l * lda + i : i * lda + l] *
                                  (double)b[trans_b ? j * ldb + l : l * ldb + j];
                    want += term;
                    size += fabs(term);
                }
                NEAR((double)y[i * ldy + j], want, 1e-6, 1 + size);
            }
        free(y);
    }
    free(a), free(b), free(before);
}

START_TEST(small)
{
    static const int64_t sizes[] = {0, 1, 3, 5, 16, 33};
    for (int a = 0; a < 6; a++)
        for (int b = 0; b < 6; b++)
            for (int c = 0; c < 6; c++)
                for (int form = 0; form < 3; form++)
                    for (int add = 0; add < 2; add++)
                        check_small(form == 1, form == 2, sizes[a], sizes[b], sizes[c], add);
}
END_TEST

/* Lengths and numbers must not meet in the sums: 0 times what lies beyond a row's end. */
START_TEST(infinity_beyond_the_row_does_not_matter)
{
    EACH_LEVEL
    {
        float x[40], w[40], y = 0;
        for (int64_t l = 0; l < 40; l++) {
            x[l] = l < 21 ? 1 : INFINITY;
            w[l] = l < 21 ? 2 : NAN;
        }
        pf_skinny_product(1, 1, 21, x, 40, w, 40, NULL, false, &y, 1);
        ck_assert(y == 42);
        pf_skinny_combine(1, 1, 1, x, 40, w + 20, 40, &y, 1);
        ck_assert(y == 2);
    }
}
END_TEST

TEST_MAIN("skinny", product, combination, small, infinity_beyond_the_row_does_not_matter)
