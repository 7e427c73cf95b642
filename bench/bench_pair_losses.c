/* Pair losses with both gradients, against a plain copy of the same arrays (four in, two out).
 *
 *     bench_pair_losses [PAIRS]      1000000
 *
 * Medians of interleaved runs, in processor time, as one thread does all of it. */
#define _GNU_SOURCE
#include <string.h>

#include "bench.h"

enum { RUNS = 9, ARRAYS = 6 };

static const char *const names[] = {
    "sigmoid",      "hinge", "ipo", "ipo_sum",      "robust",   "exo",      "nca",
    "bco",          "sppo",  "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop",
    "sigmoid_norm", "simpo", "cpo", "orpo",         "dpop",
};
enum { VARIANTS = sizeof names / sizeof names[0] };

typedef struct {
    prefopt_pair_scores in;
    prefopt_pair_loss out;
    double *array[ARRAYS], *copy[ARRAYS];
    int64_t *length;
} setting;

static double time_copy(setting *s)
{
    double start = processor();
    for (int k = 0; k < ARRAYS; k++)
        memcpy(s->copy[k], s->array[k], (size_t)s->in.n * sizeof(double));
    return processor() - start;
}

static double time_dpo(setting *s, int variant)
{
    prefopt_dpo_options o;
    need(prefopt_dpo_options_init(&o, sizeof o));
    o.variant = variant;
    if (variant == PREFOPT_DPO_EXO || variant == PREFOPT_DPO_ROBUST)
        o.label_smoothing = 0.1;
    prefopt_pair_scores in = s->in;
    if (variant == PREFOPT_DPO_SIMPO || variant == PREFOPT_DPO_CPO || variant == PREFOPT_DPO_ORPO)
        in.ref_chosen = in.ref_rejected = NULL;
    if (variant == PREFOPT_DPO_IPO || variant == PREFOPT_DPO_SIGMOID_NORM ||
        variant == PREFOPT_DPO_SIMPO || variant == PREFOPT_DPO_ORPO)
        in.len_chosen = in.len_rejected = s->length;
    double start = processor();
    need(prefopt_loss_dpo(&o, &in, &s->out));
    return processor() - start;
}

static double time_bradley_terry(setting *s, int tie_model)
{
    prefopt_bt_options o;
    need(prefopt_bt_options_init(&o, sizeof o));
    o.tie_model = tie_model;
    o.log_tie = tie_model == PREFOPT_TIE_NONE ? 0 : 0.3;
    prefopt_pair_scores in = s->in;
    in.ref_chosen = in.ref_rejected = NULL;
    double start = processor();
    need(prefopt_loss_bradley_terry(&o, &in, &s->out));
    return processor() - start;
}

static void make_setting(setting *s, int64_t n)
{
    memset(s, 0, sizeof *s);
    s->length = malloc((size_t)n * sizeof(int64_t));
    must(s->length != NULL, "memory");
    for (int k = 0; k < ARRAYS; k++) {
        s->array[k] = malloc((size_t)n * sizeof(double));
        s->copy[k] = malloc((size_t)n * sizeof(double));
        must(s->array[k] != NULL && s->copy[k] != NULL, "memory");
        need(prefopt_random_normal(1, (uint64_t)k, 0, n, s->array[k]));
        memset(s->copy[k], 0, (size_t)n * sizeof(double));
        for (int64_t i = 0; i < n; i++)
            s->array[k][i] = 3 * s->array[k][i] - 40;
    }
    for (int64_t i = 0; i < n; i++)
        s->length[i] = 20 + i % 7;
    s->in = (prefopt_pair_scores){.struct_size = sizeof s->in, .n = n};
    s->in.chosen = s->array[0];
    s->in.rejected = s->array[1];
    s->in.ref_chosen = s->array[2];
    s->in.ref_rejected = s->array[3];
    s->out = (prefopt_pair_loss){.struct_size = sizeof s->out};
    s->out.grad_chosen = s->array[4];
    s->out.grad_rejected = s->array[5];
}

int main(int argc, char **argv)
{
    int64_t n = argc > 1 ? strtoll(argv[1], NULL, 10) : 1000000;
    if (n < 1 || argc > 2) {
        fprintf(stderr, "usage: %s [PAIRS]\n", argv[0]);
        return 2;
    }
    setting s;
    make_setting(&s, n);
    double copy[RUNS], dpo[VARIANTS][RUNS], bt[3][RUNS];
    for (int run = 0; run < RUNS; run++) {
        copy[run] = time_copy(&s);
        for (int v = 0; v < VARIANTS; v++)
            dpo[v][run] = time_dpo(&s, v);
        for (int m = 0; m < 3; m++)
            bt[m][run] = time_bradley_terry(&s, m);
    }
    double base = median(RUNS, copy);
    printf("pairs %lld 1\ncopy %.3f ms\n", (long long)n, base * 1e3);
    for (int v = 0; v < VARIANTS; v++) {
        double t = median(RUNS, dpo[v]);
        printf("dpo_%s %.3f ms\ndpo_%s_over_copy %.2f 1\n", names[v], t * 1e3, names[v], t / base);
    }
    static const char *const ties[] = {"none", "davidson", "rao_kupper"};
    for (int m = 0; m < 3; m++) {
        double t = median(RUNS, bt[m]);
        printf("bradley_terry_%s %.3f ms\nbradley_terry_%s_over_copy %.2f 1\n", ties[m], t * 1e3,
               ties[m], t / base);
    }
    for (int k = 0; k < ARRAYS; k++) {
        free(s.array[k]);
        free(s.copy[k]);
    }
    free(s.length);
    return 0;
}
