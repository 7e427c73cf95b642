/* The optimiser's float32 passes against double references, at every level. */
#include <float.h>

#include "levels.h"
#include "math/pf_steps.h"

static const int64_t sizes[] = {0, 1, 7, 63, 64, 65, 127, 1000};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

/* Some values that are not finite. */
static float *values(int64_t n)
{
    float *value = floats(n, 2, 1);
    for (int64_t i = 5; i < n; i += 50)
        value[i] = i % 100 == 5 ? -INFINITY : NAN;
    return value;
}

START_TEST(norms_and_ridges)
{
    for (int64_t s = 0; s < N_SIZES; s++) {
        int64_t n = sizes[s];
        double square[3], ridge[3], grads = 0, weights = 0;
        float most = 0, *value = values(n), *grad = floats(n, 0.1, 2);
        for (int64_t i = 0; i < n; i++) {
            grads += (double)grad[i] * (double)grad[i];
            if (!isfinite(value[i]))
                continue;
            weights += (double)value[i] * (double)value[i];
            most = fmaxf(most, fabsf(value[i]));
        }
        EACH_LEVEL
        {
            float largest = -1, *own = copy_of(grad, n);
            square[level] = pf_grad_square_f32(n, grad, value, &largest);
            CLOSE(square[level], grads, 1e-13);
            ck_assert(largest == most);
            CLOSE(pf_ridge_f32(n, 0.3, false, value, own), weights, 1e-13);
            SAME_BITS(own, grad, n);
            ridge[level] = pf_ridge_f32(n, 0.3, true, value, own);
            CLOSE(ridge[level], weights, 1e-13);
            ck_assert(square[level] == square[0] && ridge[level] == ridge[0]);
            for (int64_t i = 0; i < n; i++) {
                double x = isfinite(value[i]) ? (double)value[i] : 0;
                ck_assert(own[i] == (float)((double)grad[i] + 0.3 * x));
            }
            check_guard(own, n);
            free(own);
        }
        free(value);
        free(grad);
    }
}
END_TEST

START_TEST(bad_gradients_show_in_the_norm)
{
    for (int64_t at = 0; at < 130; at += 43) {
        float *value = floats(130, 1, 1), *grad = floats(130, 1, 2), largest;
        EACH_LEVEL
        {
            grad[at] = INFINITY;
            ck_assert(isinf(pf_grad_square_f32(130, grad, value, &largest)));
            grad[at] = NAN;
            ck_assert(isnan(pf_grad_square_f32(130, grad, value, &largest)));
            grad[at] = 1e30f; /* its square is no float */
            CLOSE(pf_grad_square_f32(130, grad, value, &largest) / 1e60, 1, 1e-6);
        }
        free(value);
        free(grad);
    }
}
END_TEST

/* One step from given moments. */
START_TEST(adamw_steps)
{
    const double beta1 = 0.9, beta2 = 0.999, rate = 1e-2, epsilon = 1e-8, shrink = 1e-4;
    const double c1 = 1 - pow(beta1, 3), c2 = 1 - pow(beta2, 3);
    const pf_adamw_constants c = {.scale = 0.5f,
                                  .beta1 = (float)beta1,
                                  .beta1_rest = (float)(beta1 - (double)(float)beta1),
                                  .keep1 = (float)(1 - beta1),
                                  .beta2 = (float)beta2,
                                  .beta2_rest = (float)(beta2 - (double)(float)beta2),
                                  .keep2 = (float)(1 - beta2),
                                  .rate = (float)(rate / c1),
                                  .root = (float)(1 / sqrt(c2)),
                                  .epsilon = (float)epsilon,
                                  .shrink = (float)shrink};
    for (int64_t s = 0; s < N_SIZES; s++) {
        int64_t n = sizes[s];
        float *value = values(n), *grad = floats(n, 0.1, 2), *first = floats(n, 0.1, 3),
              *second = floats(n, 0.1, 4), *kept[3] = {NULL};
        for (int64_t i = 0; i < n; i++)
            second[i] *= second[i];
        for (int64_t i = 7; i < n; i += 60) { /* on their way out */
            first[i] = -1.2e-38f;
            second[i] = FLT_MIN;
            grad[i] = 0;
        }
        EACH_LEVEL
        {
            float *x = copy_of(value, n), *m = copy_of(first, n), *v = copy_of(second, n);
            int64_t half = n / 3; /* in two calls */
            pf_adamw_f32(half, &c, x, grad, m, v);
            pf_adamw_f32(n - half, &c, x + half, grad + half, m + half, v + half);
            for (int64_t i = 0; i < n; i++) {
                if (!isfinite(value[i])) {
                    ck_assert(memcmp(&x[i], &value[i], sizeof *x) == 0);
                    ck_assert(m[i] == first[i] && v[i] == second[i]);
                    continue;
                }
                double g = 0.5 * (double)grad[i];
                double new_m = beta1 * (double)first[i] + (1 - beta1) * g;
                double new_v = beta2 * (double)second[i] + (1 - beta2) * g * g;
                double step = new_m / c1 / (sqrt(new_v / c2) + epsilon);
                ck_assert(m[i] == 0 || fabsf(m[i]) >= FLT_MIN);
                ck_assert(v[i] == 0 || v[i] >= FLT_MIN);
                NEAR((double)m[i], new_m, 3e-7, fabs((double)first[i]) + 2e-31);
                NEAR((double)v[i], new_v, 3e-7, 1e-31);
                NEAR((double)x[i], (1 - shrink) * (double)value[i] - rate * step, 3e-7,
                     fabs((double)value[i]) + fabs(rate * step));
            }
            check_guard(x, n);
            check_guard(m, n);
            check_guard(v, n);
            if (level == 0) {
                kept[0] = x, kept[1] = m, kept[2] = v;
                continue;
            }
            SAME_BITS(x, kept[0], n);
            SAME_BITS(m, kept[1], n);
            SAME_BITS(v, kept[2], n);
            free(x), free(m), free(v);
        }
        for (int i = 0; i < 3; i++)
            free(kept[i]);
        free(value), free(grad), free(first), free(second);
    }
}
END_TEST

START_TEST(sgd_steps)
{
    const pf_sgd_constants c = {.scale = 0.5f, .momentum = 0.9f, .rate = 0.1f, .shrink = 1e-4f};
    for (int64_t s = 0; s < N_SIZES; s++)
        for (int heavy = 0; heavy < 2; heavy++) {
            int64_t n = sizes[s];
            float *value = values(n), *grad = floats(n, 0.1, 2), *first = floats(n, 0.1, 3),
                  *kept[2] = {NULL};
            EACH_LEVEL
            {
                float *x = copy_of(value, n), *m = copy_of(first, n);
                pf_sgd_f32(n, &c, x, grad, heavy ? m : NULL);
                for (int64_t i = 0; i < n; i++) {
                    if (!isfinite(value[i])) {
                        ck_assert(memcmp(&x[i], &value[i], sizeof *x) == 0 && m[i] == first[i]);
                        continue;
                    }
                    double step = 0.5 * (double)grad[i] + (heavy ? 0.9 * (double)first[i] : 0);
                    if (heavy)
                        NEAR((double)m[i], step, 2e-7, 0.1);
                    NEAR((double)x[i], (1 - 1e-4) * (double)value[i] - 0.1 * step, 3e-7,
                         fabs((double)value[i]) + fabs(0.1 * step));
                }
                check_guard(x, n);
                check_guard(m, n);
                if (level == 0) {
                    kept[0] = x, kept[1] = m;
                    continue;
                }
                SAME_BITS(x, kept[0], n);
                SAME_BITS(m, kept[1], n);
                free(x), free(m);
            }
            free(kept[0]), free(kept[1]);
            free(value), free(grad), free(first);
        }
}
END_TEST

TEST_MAIN("steps", norms_and_ridges, bad_gradients_show_in_the_norm, adamw_steps, sgd_steps)
