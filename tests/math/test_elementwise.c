/* Sums over rows and columns, rotary positions, and all bits of the two half-precision formats. */
#include "levels.h"

#include "math/pf_ops.h"

START_TEST(sums)
{
    static const int64_t widths[] = {0, 1, 63, 64, 65, 127, 512};
    for (int w = 0; w < 7; w++)
        for (int64_t rows = 0; rows < 10; rows += 3) {
            int64_t width = widths[w], ld = width + 2, n = rows * ld;
            float *x = floats(n, 1, 1), *bias = floats(width, 1, 2);
            EACH_LEVEL
            {
                float *y = copy_of(x, n), *sum = copy_of(bias, width), *z = copy_of(x, n);
                pf_add_bias(rows, width, bias, y, ld);
                pf_add_columns(rows, width, x, ld, sum);
                pf_accumulate(n, x, z);
                check_guard(y, n), check_guard(sum, width), check_guard(z, n);
                for (int64_t i = 0; i < n; i++)
                    if (y[i] != (i % ld < width ? x[i] + bias[i % ld] : x[i]) ||
                        z[i] != x[i] + x[i])
                        ck_abort_msg("element %d is %g, %g", (int)i, (double)y[i], (double)z[i]);
                for (int64_t j = 0; j < width; j++) {
                    float want = bias[j];
                    for (int64_t i = 0; i < rows; i++)
                        want += x[i * ld + j];
                    ck_assert_msg(sum[j] == want, "the rows are not added in their order");
                }
                free(y), free(sum), free(z);
            }
            free(x), free(bias);
        }
}
END_TEST

START_TEST(rotary)
{
    static const int64_t halves[] = {0, 1, 8, 16, 31, 64};
    enum { HEADS = 3 };
    for (int c = 0; c < 6; c++) {
        int64_t half = halves[c], stride = 2 * half + 5, n = HEADS * stride;
        float *x = floats(n, 1, 1), *cosine = floats(half, 1, 2), *sine = floats(half, 1, 3);
        for (int64_t j = 0; j < half; j++) {
            double angle = 100 * (double)cosine[j];
            cosine[j] = (float)cos(angle);
            sine[j] = (float)sin(angle);
        }
        EACH_LEVEL
        {
            float *y = copy_of(x, n);
            pf_rotary(HEADS, stride, half, cosine, sine, false, y);
            check_guard(y, n);
            for (int64_t h = 0; h < HEADS; h++)
                for (int64_t j = 0; j < stride; j++) {
                    const float *in = x + h * stride;
                    float want = in[j];
                    if (j < half)
                        want = in[j] * cosine[j] - in[j + half] * sine[j];
                    else if (j < 2 * half)
                        want = in[j] * cosine[j - half] + in[j - half] * sine[j - half];
                    NEAR((double)y[h * stride + j], (double)want, 1e-7, 1);
                }
            pf_rotary(HEADS, stride, half, cosine, sine, true, y);
            for (int64_t i = 0; i < n; i++)
                NEAR((double)y[i], (double)x[i], 3e-7, 1);
            free(y);
        }
        free(x), free(cosine), free(sine);
    }
}
END_TEST

/* The value of a half with that many bits of exponent and mantissa. */
static double value_of(uint32_t half, int exponent_bits, int mantissa_bits)
{
    int32_t bias = (1 << (exponent_bits - 1)) - 1;
    int32_t exponent = (int32_t)(half >> mantissa_bits) & ((1 << exponent_bits) - 1);
    double mantissa = (double)(half & ((1u << mantissa_bits) - 1)) / (1 << mantissa_bits);
    double sign = half & 0x8000 ? -1 : 1;
    if (exponent == (1 << exponent_bits) - 1)
        return mantissa != 0 ? NAN : sign * INFINITY;
    return sign *
           (exponent == 0 ? ldexp(mantissa, 1 - bias) : ldexp(1 + mantissa, exponent - bias));
}

static void all_halves(bool bf16)
{
    enum { ALL = 65536 };
    void (*widen)(int64_t, const uint16_t *, float *) = bf16 ? pf_f32_from_bf16 : pf_f32_from_f16;
    void (*narrow)(int64_t, const float *, uint16_t *) = bf16 ? pf_bf16_from_f32 : pf_f16_from_f32;
    uint16_t *half = malloc(ALL * sizeof *half), *back = malloc(ALL * sizeof *back);
    float *x = malloc(ALL * sizeof *x), *near = malloc(ALL * sizeof *near);
    for (uint32_t i = 0; i < ALL; i++)
        half[i] = (uint16_t)i;
    EACH_LEVEL
    {
        widen(ALL, half, x);
        narrow(ALL, x, back);
        for (uint32_t i = 0; i < ALL; i++) {
            double want = bf16 ? value_of(i, 8, 7) : value_of(i, 5, 10);
            double again = bf16 ? value_of(back[i], 8, 7) : value_of(back[i], 5, 10);
            bool good = isnan(want) ? isnan(x[i]) && isnan(again) && !((back[i] ^ i) & 0x8000)
                                    : (double)x[i] == want && back[i] == i;
            if (!good || !signbit(x[i]) != !(i & 0x8000))
                ck_abort_msg("0x%04x became %.9g, and that 0x%04x", i, (double)x[i], back[i]);
        }
        /* Between a half and the next: the middle goes to the even one, a float below or above it
         * to its neighbour. The next after the largest finite one is infinity, by the same rule. */
        uint32_t infinity = bf16 ? 0x7f80 : 0x7c00, count = infinity;
        for (int side = -1; side <= 1; side++) {
            for (uint32_t i = 0; i < count; i++) {
                float low = x[i];
                uint32_t step = pf_bits(low), middle;
                float next = i + 1 < infinity ? x[i + 1] : bf16 ? INFINITY : 65536;
                if (bf16) {
                    middle = step + 0x8000;
                } else
                    middle = pf_bits((float)(((double)low + (double)next) / 2));
                near[i] = pf_from_bits(middle + (uint32_t)side);
            }
            narrow(count, near, back);
            for (uint32_t i = 0; i < count; i++) {
                uint32_t want = side < 0 ? i : side > 0 ? i + 1 : i + (i & 1);
                if (back[i] != want)
                    ck_abort_msg("%.9g became 0x%04x, expected 0x%04x", (double)near[i], back[i],
                                 want);
                near[i] = -near[i];
            }
            narrow(count, near, back);
            for (uint32_t i = 0; i < count; i++) {
                uint32_t want = 0x8000 | (side < 0 ? i : side > 0 ? i + 1 : i + (i & 1));
                if (back[i] != want)
                    ck_abort_msg("%.9g became 0x%04x, expected 0x%04x", (double)near[i], back[i],
                                 want);
            }
        }
        /* below half of the least half, and far above the largest */
        float ends[4] = {1e-45f, 0x1p-26f, 3e38f, INFINITY};
        narrow(4, ends, back);
        ck_assert(bf16 || (back[0] == 0 && back[1] == 0 && back[2] == 0x7c00));
        ck_assert(back[3] == infinity);
        /* a NaN whose payload would be cut off */
        float nan = pf_from_bits(0x7f800001u);
        narrow(1, &nan, back);
        ck_assert(isnan(bf16 ? value_of(back[0], 8, 7) : value_of(back[0], 5, 10)));
    }
    free(half), free(back), free(x), free(near);
}

START_TEST(all_of_f16) { all_halves(false); }
END_TEST

START_TEST(all_of_bf16) { all_halves(true); }
END_TEST

TEST_MAIN("elementwise", sums, rotary, all_of_f16, all_of_bf16)
