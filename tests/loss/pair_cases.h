/* Pairs to try the pair losses on, and what each DPO variant takes (api table, written anew). */
#ifndef PAIR_CASES_H
#define PAIR_CASES_H

#include "base/pf_base.h"
#include "pf_test.h"

enum { N_VARIANTS = 19, MOST = 600 };

enum { REF = 1, MARGIN = 2, LENGTHS = 4, EPS = 8, DIVERGENCE = 16, EACH = 32 };

static const struct {
    int takes;
    const char *name;
} known[N_VARIANTS] = {
    {REF | MARGIN | EPS | DIVERGENCE | EACH, "DPO_SIGMOID"},
    {REF | MARGIN | DIVERGENCE | EACH, "DPO_HINGE"},
    {REF | MARGIN | LENGTHS | EACH, "DPO_IPO"},
    {REF | MARGIN | DIVERGENCE | EACH, "DPO_IPO_SUM"},
    {REF | MARGIN | EPS | DIVERGENCE | EACH, "DPO_ROBUST"},
    {REF | MARGIN | EPS | DIVERGENCE | EACH, "DPO_EXO"},
    {REF | EACH, "DPO_NCA"},
    {REF | EACH, "DPO_BCO"},
    {REF | EACH, "DPO_SPPO"},
    {REF | EPS, "DPO_AOT"},
    {REF | EPS, "DPO_AOT_UNPAIRED"},
    {REF | EACH, "DPO_APO_ZERO"},
    {REF | MARGIN | EACH, "DPO_APO_DOWN"},
    {REF | MARGIN | EACH, "DPO_DISCOPOP"},
    {REF | MARGIN | LENGTHS | EPS | EACH, "DPO_SIGMOID_NORM"},
    {MARGIN | LENGTHS | EPS | EACH, "DPO_SIMPO"},
    {MARGIN | EPS | EACH, "DPO_CPO"},
    {MARGIN | LENGTHS | EACH, "DPO_ORPO"},
    {REF | MARGIN | EACH, "DPO_DPOP"},
};

typedef struct {
    double chosen[MOST], rejected[MOST], ref_chosen[MOST], ref_rejected[MOST];
    double weight[MOST], label[MOST], margin[MOST];
    int64_t len_chosen[MOST], len_rejected[MOST];
    double each[MOST], grad_chosen[MOST], grad_rejected[MOST];
    prefopt_pair_scores in;
    prefopt_pair_loss out;
} cases;

/* n random pairs: log-probabilities in (-30, 0), references nearby, some weights 0, soft labels. */
static inline cases *cases_new(int64_t n, int takes)
{
    cases *c = calloc(1, sizeof *c);
    for (int64_t i = 0; i < n; i++) {
        c->chosen[i] = -0.5 - 30 * pf_uniform(1, 1, (uint64_t)i);
        c->rejected[i] = -0.5 - 30 * pf_uniform(1, 2, (uint64_t)i);
        c->ref_chosen[i] = c->chosen[i] + 5 * (pf_uniform(1, 3, (uint64_t)i) - 0.5);
        c->ref_rejected[i] = c->rejected[i] + 5 * (pf_uniform(1, 4, (uint64_t)i) - 0.5);
        c->weight[i] = i % 5 == 2 ? 0 : 0.1 + 2 * pf_uniform(1, 5, (uint64_t)i);
        c->label[i] = i % 4 == 0 ? 1 : i % 4 == 1 ? 0 : pf_uniform(1, 6, (uint64_t)i);
        c->margin[i] = 2 * pf_uniform(1, 7, (uint64_t)i) - 1;
        c->len_chosen[i] = 1 + pf_uniform_int(1, 8, (uint64_t)i, 40);
        c->len_rejected[i] = 1 + pf_uniform_int(1, 9, (uint64_t)i, 40);
    }
    c->in = (prefopt_pair_scores){.struct_size = sizeof c->in, .n = n};
    c->in.chosen = c->chosen;
    c->in.rejected = c->rejected;
    if (takes & REF) {
        c->in.ref_chosen = c->ref_chosen;
        c->in.ref_rejected = c->ref_rejected;
    }
    if (takes & EACH) {
        c->in.weight = c->weight;
        c->in.label = c->label;
    }
    if (takes & MARGIN)
        c->in.margin = c->margin;
    if (takes & LENGTHS) {
        c->in.len_chosen = c->len_chosen;
        c->in.len_rejected = c->len_rejected;
    }
    c->out = (prefopt_pair_loss){.struct_size = sizeof c->out};
    c->out.each = c->each;
    c->out.grad_chosen = c->grad_chosen;
    c->out.grad_rejected = c->grad_rejected;
    return c;
}

/* The options of a variant with every option it takes away from its default. */
static inline prefopt_dpo_options options_of(int32_t variant, int32_t divergence)
{
    prefopt_dpo_options o;
    OK(prefopt_dpo_options_init(&o, sizeof o));
    o.variant = variant;
    if (variant != PREFOPT_DPO_ORPO)
        o.beta = 0.3;
    if (known[variant].takes & EPS)
        o.label_smoothing = 0.15;
    if (variant == PREFOPT_DPO_SIMPO)
        o.gamma = 0.7;
    if (variant == PREFOPT_DPO_BCO)
        o.delta = 0.4;
    if (variant == PREFOPT_DPO_DISCOPOP)
        o.tau = 0.3;
    if (variant == PREFOPT_DPO_DPOP)
        o.lambda = 2;
    o.divergence = divergence;
    if (divergence == PREFOPT_DIVERGENCE_ALPHA)
        o.alpha = 0.4;
    return o;
}

#endif
