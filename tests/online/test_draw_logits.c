/* Draws from float logits against the same in double precision over the sorted vocabulary. */
#include "online/pf_sampler.h"
#include "statistics.h"

/* One row's distribution, made by the plainest means. */
static pf_distributions distribution(int64_t vocab, const float *logits, double temperature)
{
    pf_distributions d = {.n = 1, .vocab = vocab, .scale = (float)(1 / temperature)};
    d.n_tiles = (vocab + PF_DECODER_TILE - 1) / PF_DECODER_TILE;
    float *tile_max = malloc((size_t)d.n_tiles * sizeof *tile_max);
    double *sum = calloc((size_t)d.n_tiles, sizeof *sum);
    double *scaled = calloc((size_t)d.n_tiles, sizeof *scaled);
    double *max = malloc(sizeof *max), *z = malloc(sizeof *z);
    *max = -INFINITY;
    *z = 0;
    for (int64_t t = 0; t < d.n_tiles; t++) {
        int64_t first = t * PF_DECODER_TILE, end = first + PF_DECODER_TILE;
        end = end < vocab ? end : vocab;
        tile_max[t] = -INFINITY;
        for (int64_t v = first; v < end; v++)
            tile_max[t] = fmaxf(tile_max[t], logits[v]);
        for (int64_t v = first; v < end && tile_max[t] > -INFINITY; v++) {
            sum[t] += exp((double)logits[v] - (double)tile_max[t]);
            scaled[t] += exp(((double)logits[v] - (double)tile_max[t]) * (double)d.scale);
        }
        *max = fmax(*max, (double)tile_max[t]);
    }
    for (int64_t t = 0; t < d.n_tiles; t++)
        *z += sum[t] * exp((double)tile_max[t] - *max);
    *z = *max + log(*z);
    d.logits = logits;
    d.tile_max = tile_max;
    d.tile_sum = sum;
    d.tile_scaled = scaled;
    d.max = max;
    d.log_normaliser = z;
    return d;
}

static void end_distribution(pf_distributions *d)
{
    free((void *)d->tile_max);
    free((void *)d->tile_sum);
    free(d->tile_scaled);
    free((void *)d->max);
    free((void *)d->log_normaliser);
}

enum { DRAWS = 2000 };

static int by_id(const void *a, const void *b)
{
    const pf_draw *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static void check(int64_t vocab, const float *logits, pf_truncation t)
{
    pf_distributions d = distribution(vocab, logits, t.temperature);
    double *logp = malloc((size_t)vocab * sizeof *logp),
           *log_q = malloc((size_t)vocab * sizeof *logp);
    int64_t *order = malloc((size_t)vocab * sizeof *order);
    for (int64_t v = 0; v < vocab; v++)
        logp[v] = (double)logits[v] - d.log_normaliser[0];
    pf_truncate(vocab, logp, &t, order, log_q);
    pf_draw *a = calloc(DRAWS, sizeof *a), *b = calloc(DRAWS, sizeof *b);
    for (int64_t i = 0; i < DRAWS; i++)
        a[i] = b[i] = (pf_draw){.u = pf_uniform(4, 0, (uint64_t)i), .id = i};
    pf_draw_tokens(vocab, log_q, 1, DRAWS, a);
    pf_draw_logits(&d, 0, &t, DRAWS, b);
    int64_t unordered = 0, differ = 0;
    for (int64_t i = 1; i < DRAWS; i++)
        unordered += b[i - 1].token > b[i].token;
    ck_assert_int_eq(unordered, 0);
    qsort(a, DRAWS, sizeof *a, by_id);
    qsort(b, DRAWS, sizeof *b, by_id);
    double worst_logp = 0, worst_log_q = 0;
    for (int64_t i = 0; i < DRAWS; i++) {
        differ += a[i].token != b[i].token;
        worst_logp = fmax(worst_logp, fabs(b[i].logp - logp[b[i].token]));
        worst_log_q = fmax(worst_log_q, fabs(b[i].log_q - log_q[b[i].token]));
    }
    /* A draw within rounding of a boundary may take the neighbour. */
    ck_assert_msg(differ <= 3, "%d draws differ (T %g, k %d, p %g, min_p %g)", (int)differ,
                  t.temperature, (int)t.top_k, t.top_p, t.min_p);
    CLOSE(worst_logp, 0, 1e-9);
    ck_assert_msg(worst_log_q <= 1e-5, "log_q off by %g (T %g, k %d, p %g, min_p %g)", worst_log_q,
                  t.temperature, (int)t.top_k, t.top_p, t.min_p);
    free(a);
    free(b);
    free(order);
    free(log_q);
    free(logp);
    end_distribution(&d);
}

static void check_all(int64_t vocab, const float *logits)
{
    static const double temperatures[] = {1, 0.6, 3}, top_ps[] = {1, 0.95, 0.4, 1e-6};
    static const double min_ps[] = {0, 0.05, 1};
    const int64_t top_ks[] = {0, 1, 40, vocab / 2, vocab + 3};
    int64_t number = 0;
    for (int64_t k = 0; k < 5; k++)
        for (int64_t p = 0; p < 4; p++, number++)
            check(vocab, logits,
                  (pf_truncation){temperatures[number % 3], top_ks[k], top_ps[p],
                                  min_ps[number / 3 % 3]});
}

/* Shapes of distributions: normal, peaked, few values with many equal, some impossible. */
static float logit_of(int shape, int64_t v)
{
    double x = pf_normal(8, (uint64_t)shape, (uint64_t)v);
    switch (shape) {
    case 0:
        return (float)x;
    case 1:
        return (float)(x * fabs(x) * 3);
    case 2:
        return (float)round(x);
    default:
        return v % 3 == 0 ? -INFINITY : (float)(2 * x);
    }
}

START_TEST(draws_are_the_sorted_ones)
{
    static const int64_t vocabs[] = {1, 2, 511, 512, 513, 1300};
    float logits[1300];
    for (int shape = 0; shape < 4; shape++)
        for (int64_t n = 0; n < 6; n++) {
            for (int64_t v = 0; v < vocabs[n]; v++)
                logits[v] = logit_of(shape, v + 1);
            check_all(vocabs[n], logits);
        }
}
END_TEST

START_TEST(a_whole_vocabulary)
{
    enum { VOCAB = 50304 };
    float *logits = malloc(VOCAB * sizeof *logits);
    for (int shape = 0; shape < 4; shape++) {
        for (int64_t v = 0; v < VOCAB; v++)
            logits[v] = logit_of(shape, v);
        check(VOCAB, logits, (pf_truncation){0.8, 50, 0.9, 0});
        check(VOCAB, logits, (pf_truncation){1, 0, 0.9, 0});
        check(VOCAB, logits, (pf_truncation){1, 1000, 1, 0.01});
    }
    free(logits);
}
END_TEST

/* All equal, a tile alone has mass, temperatures at the ends of what is allowed. */
START_TEST(corners)
{
    float logits[1100];
    for (int64_t v = 0; v < 1100; v++)
        logits[v] = 3;
    check_all(1100, logits);
    for (int64_t v = 0; v < 1100; v++)
        logits[v] = v >= 600 && v < 620 ? (float)v / 100 : -1000;
    check_all(1100, logits);
    for (int64_t v = 0; v < 1100; v++)
        logits[v] = (float)(v % 7);
    pf_distributions d = distribution(1100, logits, 1);
    pf_draw draws[20];
    for (int hot = 0; hot < 2; hot++) {
        d.scale = hot ? 1e-30f : 1e30f;
        for (int64_t k = 0; k < 3; k++) {
            for (int64_t t = 0; t < d.n_tiles; t++) {
                int64_t n = t < 2 ? 512 : 76;
                d.tile_scaled[t] = 0;
                for (int64_t v = 0; v < n; v++)
                    d.tile_scaled[t] += hot || logits[t * 512 + v] == 6;
            }
            for (int64_t i = 0; i < 20; i++)
                draws[i] = (pf_draw){.u = (double)i / 20 + 0.01, .id = i};
            pf_truncation t = {hot ? 1e30 : 1e-30, k == 1 ? 500 : 0, k == 2 ? 0.5 : 1, 0};
            pf_draw_logits(&d, 0, &t, 20, draws);
            for (int64_t i = 0; i < 20; i++) {
                ck_assert(isfinite(draws[i].log_q));
                if (!hot)
                    ck_assert(logits[draws[i].token] == 6);
            }
            /* Nearly uniform over what is kept. */
            double kept = k == 0 ? 1100 : k == 1 ? 500 : 550;
            if (hot)
                CLOSE(draws[0].log_q, -log(kept), 1e-5);
        }
    }
    /* u at the very end takes the last token that there is. */
    d.scale = 1;
    memcpy(d.tile_scaled, d.tile_sum, (size_t)d.n_tiles * sizeof(double));
    draws[0] = (pf_draw){.u = 1};
    pf_draw_logits(&d, 0, &(pf_truncation){1, 0, 1, 0}, 1, draws);
    ck_assert_int_eq(draws[0].token, 1099);
    pf_greedy_logits(&d, 0, 2, draws);
    ck_assert(draws[0].token == 6 && draws[1].token == 6 && draws[0].log_q == 0);
    CLOSE(draws[0].logp, 6 - d.log_normaliser[0], 1e-12);
    end_distribution(&d);
}
END_TEST

TEST_MAIN("draw_logits", draws_are_the_sorted_ones, a_whole_vocabulary, corners)
