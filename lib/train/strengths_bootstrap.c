/* The bootstrap: refits on comparisons (or rankings) drawn anew. Each of the weight[i] comparisons
 * of row i appears Poisson(1) times in a replicate, so row i gets weight Poisson(weight[i]): the
 * Poisson form of the bootstrap, which needs no pass over the total and one draw a row. */
#include "train/pf_strengths.h"

enum { UNBOUNDED = 0, FITTED = 1, NOT_CONVERGED = 2 };

typedef struct {
    pf_likelihood *likelihood;
    pf_newton newton;
    pf_win_graph graph;
    double *scratch;
} slot;

typedef struct {
    slot *slots;
    int64_t n_slots;
    const double *x;
    double ridge;
    int32_t replicates;
    uint64_t seed;
    double *draws;
    uint8_t *outcome; /* replicates */
} bootstrap;

static void replicate_task(void *payload, int64_t task)
{
    bootstrap *b = payload;
    slot *s = &b->slots[task];
    pf_likelihood *l = s->likelihood;
    for (int64_t r = task; r < b->replicates; r += b->n_slots) {
        double *x = b->draws + r * l->dim, norm;
        int64_t iterations;
        l->ops->resample(l, b->seed, (uint64_t)r);
        b->outcome[r] = UNBOUNDED;
        if (pf_strengths_exist(l, b->ridge, &s->graph, s->scratch, true) != PREFOPT_OK)
            continue;
        memcpy(x, b->x, (size_t)l->dim * sizeof *x);
        b->outcome[r] = pf_newton_fit(&s->newton, x, &iterations, &norm) ? FITTED : NOT_CONVERGED;
    }
}

static void destroy_slots(prefopt_context *context, slot *slots, int64_t n)
{
    for (int64_t i = 0; i < n && slots != NULL; i++) {
        pf_newton_destroy(&slots[i].newton);
        pf_win_graph_destroy(&slots[i].graph, context);
        pf_free(context, slots[i].scratch);
        if (slots[i].likelihood != NULL)
            slots[i].likelihood->ops->destroy(slots[i].likelihood);
    }
    pf_free(context, slots);
}

static int32_t create_slot(slot *s, pf_likelihood *l, double ridge, double tolerance)
{
    if ((s->likelihood = l->ops->clone(l)) == NULL ||
        (s->scratch = pf_alloc(l->context, l->n_items, sizeof *s->scratch)) == NULL)
        return PREFOPT_ERR_MEMORY;
    PF_TRY(pf_win_graph_create(&s->graph, l->context, l->n_items, l->ops->max_edges(l)));
    return pf_newton_create(&s->newton, s->likelihood, ridge, tolerance);
}

/* As many at once as there are threads and the byte budget has room for. */
static int64_t count_slots(const pf_likelihood *l, int32_t replicates)
{
    int64_t slots = prefopt_context_threads(l->context);
    int64_t bytes = 64 * l->ops->max_edges(l) + 8 * l->dim * (l->n_chunks + 16);
    int64_t fit = pf_context_byte_budget(l->context) / (bytes + 1);
    slots = slots < replicates ? slots : replicates;
    return fit < 1 ? 1 : fit < slots ? fit : slots;
}

/* Draws of finite refits to the front. */
static int32_t keep_finite(const bootstrap *b, int64_t dim, int64_t *n_kept)
{
    int64_t kept = 0;
    for (int64_t r = 0; r < b->replicates; r++) {
        if (b->outcome[r] == NOT_CONVERGED)
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "bootstrap replicate %lld did not reach the tolerance", (long long)r);
        if (b->outcome[r] == UNBOUNDED)
            continue;
        if (kept < r)
            memcpy(b->draws + kept * dim, b->draws + r * dim, (size_t)dim * sizeof *b->draws);
        kept++;
    }
    if (kept < 2)
        return pf_fail(PREFOPT_ERR_UNBOUNDED,
                       "bootstrap: %lld of %d replicates have a finite optimum, expected at least "
                       "2; set ridge > 0",
                       (long long)kept, b->replicates);
    *n_kept = kept;
    return PREFOPT_OK;
}

int32_t pf_strengths_bootstrap(pf_likelihood *l, const double *x, double ridge, double tolerance,
                               int32_t replicates, uint64_t seed, double *draws, int64_t *n_kept)
{
    prefopt_context *context = l->context;
    bootstrap b = {NULL, count_slots(l, replicates), x, ridge, replicates, seed, draws, NULL};
    int32_t status = PREFOPT_ERR_MEMORY;
    b.slots = pf_calloc(context, b.n_slots, sizeof *b.slots);
    b.outcome = b.slots == NULL ? NULL : pf_alloc(context, replicates, sizeof *b.outcome);
    if (b.outcome != NULL) {
        status = PREFOPT_OK;
        for (int64_t i = 0; i < b.n_slots && status == PREFOPT_OK; i++)
            status = create_slot(&b.slots[i], l, ridge, tolerance);
    }
    if (status == PREFOPT_OK) {
        pf_parallel_for(context, b.n_slots, replicate_task, &b);
        status = keep_finite(&b, l->dim, n_kept);
    }
    destroy_slots(context, b.slots, b.n_slots);
    pf_free(context, b.outcome);
    return status;
}
